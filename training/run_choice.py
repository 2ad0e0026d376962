"""Which run folder a command works in: the one a training continues or starts, and the one that takes the results for a snapshot."""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple

from dnnlib import UsageError, UserError, locks, runs
from dnnlib.tflib.snapshot import read_records
from training import run_files, run_record, training_state

LOCK = ".lock"  # in the folder of a run: held by the process that trains there


class FoundRun(NamedTuple):
    """The run that a training goes into, as far as it exists."""

    run_dir: str | None = None                              # None for a new one
    lock: object = None                                     # see `_lock_run`
    state: training_state.TrainingState | None = None       # to continue from
    notes: tuple = ()                                       # for the user


def find_run(options):
    """The latest run of a training's name, if it can be continued. One with results alone stays as it is: they are for other weights.

    Args:
        options: training.command_line.Options.

    Returns:
        FoundRun.

    Raises:
        UserError: another process trains there, or it has training states and none can be read.
    """
    run_dir = None if options.restart else run_record.trained_run(options.result_dir, options.expname)
    if run_dir is None:
        return FoundRun()
    lock = _lock_run(run_dir)
    with locks.freed_by_errors(lock):
        try:
            state, path = training_state.load_latest(run_dir)
        except UserError as error:
            raise UserError(f"{error}; {_other_ways(run_dir)}") from None
    if state is not None:
        note = f"continuing {run_dir} from {os.path.basename(path)} (kimg {state.progress.images / 1000:.3f})"
        return FoundRun(run_dir, lock, state, (note,))
    if run_files.snapshots(run_dir):  # networks without a training state: nothing to continue exactly, and nothing to overwrite
        return FoundRun(notes=("the latest run has no training state: starting a new one",))
    return FoundRun(run_dir, lock)


def _other_ways(run_dir):
    """What to give to train on from a run whose states cannot be read."""
    try:
        path, _ = run_files.newest_readable(run_files.snapshots(run_dir), read_records)
    except UserError:
        path = None
    weights = f", or --restart --pretrained-pkl {path} for one that starts from these weights" if path else ""
    return f"give --restart for a new run{weights}"


def enter_run(found, options, record):
    """Make the folder of a training ready: a new one where none was found, with config.json in it unless the training continues.

    Args:
        found: FoundRun.
        options: training.command_line.Options.
        record: of this training.

    Returns:
        (run folder, its lock, list of notes for the user).

    Raises:
        UserError: the run cannot continue with these options.
    """
    if found.state is not None:
        return found.run_dir, found.lock, [*found.notes, *run_record.check_continuation(found.state.record, record, options)]
    run_dir, lock = found.run_dir, found.lock
    if run_dir is None:
        run_dir = runs.create_run(options.result_dir, options.expname)
        lock = _lock_run(run_dir)
    run_record.write_record(run_dir, record)
    return run_dir, lock, list(found.notes)


def _lock_run(run_dir):
    """The lock of a run (see dnnlib.locks), or None if its file cannot be opened.

    Raises:
        UserError: another process trains in it.
    """
    path = os.path.join(run_dir, LOCK)
    try:
        return locks.take(path)
    except BlockingIOError:
        raise UserError(f"{run_dir} is being trained by {locks.owner(path)}: wait for its end, or give --restart for a new run or "
                        "another --expname") from None  # fmt: skip
    except OSError:
        return None


def with_origin(options, record):
    """The options of a training that continues a run: they say where the run began, whether or not the command repeats it.

    Args:
        options: training.command_line.Options.
        record: of the run.

    Raises:
        UsageError: the command names a snapshot that the run did not start from.
    """
    origin, given = record["options"]["pretrained_pkl"], options.pretrained_pkl
    if given != "None" and os.path.abspath(given) != os.path.abspath(origin):
        began = "from scratch" if origin == "None" else f"from {origin}"
        raise UsageError(f"--pretrained-pkl {given}: the latest run {options.expname} began {began} and would continue from its own state; "
                         "leave this flag out to continue it, or give --restart or another --expname to start a new run from this snapshot")
    return dataclasses.replace(options, pretrained_pkl=origin)


def results_run(path, options, named):
    """The run that takes the results for a snapshot, which must not mix with those for weights that were trained elsewhere.

    Args:
        path: of the snapshot.
        options: training.command_line.Options.
        named: whether --expname was given; otherwise the run that the snapshot lies in may have any name.

    Returns:
        The folder of the run that the snapshot lies in; else of the latest run of --expname, if it has trained nothing; else of a new run.
    """
    folder = os.path.dirname(os.path.abspath(path))
    name = runs.run_name(folder)
    if name and os.path.samefile(os.path.dirname(folder), options.result_dir) and (name == options.expname or not named):
        return os.path.join(options.result_dir, os.path.basename(folder))
    latest = runs.latest_run(options.result_dir, options.expname)
    if latest is None or run_record.was_trained(latest):
        return runs.create_run(options.result_dir, options.expname)
    return latest
