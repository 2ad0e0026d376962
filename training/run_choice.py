"""Which run folder a command works in: the one a training continues or starts, and the one that takes the results for a snapshot."""

from __future__ import annotations

import os

from dnnlib import UsageError, UserError, locks, runs
from training import run_files, run_record, training_state

LOCK = ".lock"  # in the folder of a run: held by the process that trains there


def choose_run(options, record):
    """The run of a training: the latest of that name, or a new one with config.json in it.

    Args:
        options: training.command_line.Options.
        record: of this training; where the run began is taken over from the one that it continues.

    Returns:
        (run folder, its lock, TrainingState to continue from or None, list of notes for the user).

    Raises:
        UserError: another process trains there, or the run cannot continue with these options.
    """
    run_dir = None if options.restart else run_record.latest_run(options.result_dir, options.expname)
    lock, state, notes = run_dir and _lock_run(run_dir), None, []
    if run_dir is not None:
        state, path = training_state.load_latest(run_dir)
        if state is not None:
            notes.append(f"continuing {run_dir} from {os.path.basename(path)} (kimg {state.progress.images / 1000:.3f})")
            _keep_origin(state.record, record, run_dir)
            notes += run_record.check_continuation(state.record, record, options)
        elif run_files.snapshots(run_dir):
            run_dir = None  # networks without a training state: nothing to continue exactly, and nothing to overwrite
            notes.append("the latest run has no training state: starting a new one")
    if run_dir is None:
        run_dir = runs.create_run(options.result_dir, options.expname)
        lock = _lock_run(run_dir)
    if state is None:
        run_record.write_record(run_dir, record)
    return run_dir, lock, state, notes


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


def _keep_origin(old, record, run_dir):
    """Let the new record of a run that continues say where the run began, whether or not the command repeats it.

    Raises:
        UsageError: the command names a snapshot that the run did not start from.
    """
    origin, given = (one["options"]["pretrained_pkl"] for one in (old, record))
    if given != "None" and os.path.abspath(given) != os.path.abspath(origin):
        began = "from scratch" if origin == "None" else f"from {origin}"
        raise UsageError(f"--pretrained-pkl {given}: run {os.path.basename(run_dir)} began {began} and would continue from its own state; "
                         "give --restart or another --expname to start a new run from this snapshot")  # fmt: skip
    record["options"]["pretrained_pkl"] = origin


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
