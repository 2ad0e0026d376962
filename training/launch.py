"""Launching what a command line asks for: devices, networks, training runs, snapshots."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from typing import NamedTuple

from dnnlib import UsageError, UserError, locks, runs, tflib
from dnnlib.tflib import registry
from dnnlib.tflib.snapshot import build_network, local_path, read_records
from training import configure, report, run_record, schedule, training_state
from training.config import OutputConfig, TrainingConfig, differences
from training.devices import open_devices
from training.networks.vitgan.config import TransformerConfig
from training.run_record import HARMLESS_NETWORK_FIELDS
from training.training_loop import TrainingLoop
from training.visualize import showcase

LOCK = ".lock"  # in the folder of a run: held by the process that trains there


class TrainingPlan(NamedTuple):
    """A training that passed all checks and may start."""

    run_dir: str | None                              # None in workers that write no files
    config: TrainingConfig
    record: dict
    generator: object                                # its configuration
    discriminator: object
    state: training_state.TrainingState | None       # to continue from
    pretrained: list | None                          # NetworkRecords to start from
    lock: object                                     # open file: no other process trains in run_dir while it is; None in workers
    notes: list                                      # lines on what is continued, and what of it is another now


class Snapshot(NamedTuple):
    """A readable snapshot, and the run whose folder takes what is made with it."""

    path: str
    run_dir: str
    networks: list        # NetworkRecords of G, D and Gs
    trained: dict | None  # the record of the run that it lies in


def init_devices(options):
    """Open TensorFlow on the devices asked for, in a training of several workers together with them.

    Returns:
        list of device strings.
    """
    tflib.allow_tf32(options.precision == "tf32")
    workers = tflib.Workers.from_environment() if options.train else None
    devices = open_devices(options.gpus, options.ops, together=None if options.dry_run else workers)
    if options.train:
        schedule.rounds_per_step(options.batch_size, options.batch_gpu, len(devices) * workers.count)
    return devices


def network_configs(options, dataset):
    """(generator's, discriminator's) configuration of the options.

    Raises:
        UsageError: options that do not go together, or not with this dataset.
    """
    with configure.errors_name_flags("g_"):
        generator = configure.generator_config(options, dataset)
    with configure.errors_name_flags("d_"):
        discriminator = configure.discriminator_config(options, dataset)
    return generator, discriminator


def print_networks(options, dataset):
    """Build the networks and print their layers and parameter counts."""
    generator, discriminator = network_configs(options, dataset)
    with tflib.session_scope():
        for name, config in (("G", generator), ("D", discriminator)):
            tflib.Network(name, config, seed=options.seed).print_layers()
            print()


def plan_training(options, dataset, devices):
    """Check everything that a training needs, before a network is built, and choose its run folder.

    Raises:
        UserError: the run cannot continue with these options, or the snapshot to start from does not fit.
    """
    generator, discriminator, pretrained = start_configs(options, dataset)
    config = configure.training_config(options)
    record = run_record.make_record(options, config, generator, discriminator, dataset)
    run_dir, lock, state, notes = _choose_run(options, record) if tflib.workers().leads else (None, None, None, [])
    with tflib.session_scope():
        _check_workers(record, devices)
        state = training_state.share(state)
    pretrained = pretrained if state is None else None
    return TrainingPlan(run_dir, config, record, generator, discriminator, state, pretrained, lock, notes)


def start_configs(options, dataset):
    """Configurations that a training starts with: of the options, or of the snapshot that --pretrained-pkl names.

    Returns:
        (generator's, discriminator's, NetworkRecords of the snapshot or None).

    Raises:
        UserError: the options do not go together, or the snapshot does not fit them or the dataset.
    """
    generator, discriminator = network_configs(options, dataset)
    if options.pretrained_pkl == "None":
        return generator, discriminator, None
    pretrained = read_records(local_path(options.pretrained_pkl))
    generator = _pretrained_config(pretrained[0], generator, options, dataset)
    discriminator = _pretrained_config(pretrained[1], discriminator, options, dataset)
    return generator, discriminator, pretrained


def _choose_run(options, record):
    """The folder of the run, a new one with config.json in it, its lock, the TrainingState to continue from or None, and notes."""
    run_dir = None if options.restart else runs.latest_run(options.result_dir, options.expname)
    lock, state, notes = run_dir and _lock_run(run_dir), None, []
    if run_dir is not None:
        state, path = training_state.load_latest(run_dir)
        if state is not None:
            notes.append(f"continuing {run_dir} from {os.path.basename(path)} (kimg {state.progress.images / 1000:.3f})")
            notes += _keep_origin(state.record, record, run_dir)
            notes += run_record.check_continuation(state.record, record, options.accept_changes)
        elif training_state.snapshots(run_dir):
            run_dir = None  # networks without a training state: nothing to continue exactly, and nothing to overwrite
            notes.append("the latest run has no training state: starting a new one")
    if run_dir is None:
        run_dir = runs.create_run(options.result_dir, options.expname)
        lock = _lock_run(run_dir)
    if state is None:
        run_record.write_record(run_dir, record)
    return run_dir, lock, state, notes


def _lock_run(run_dir):
    """The lock of a run (see dnnlib.locks), or None where its file cannot be opened.

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
    """A run that goes on has begun where its record says, whether the command names that snapshot or not.

    Returns:
        list of notes.

    Raises:
        UsageError: the command names another snapshot to start from.
    """
    origin, given = (one["options"]["pretrained_pkl"] for one in (old, record))
    same = os.path.abspath(given) == os.path.abspath(origin)
    if not same and "None" not in (given, origin):
        raise UsageError(f"--pretrained-pkl {given}: run {os.path.basename(run_dir)} began from {origin} and continues its own state; "
                         "give --restart for a new run")  # fmt: skip
    record["options"]["pretrained_pkl"] = origin
    unused = not same and given != "None"
    return [f"--pretrained-pkl {given} is not used: the run continues its own state (--restart begins a new run)"] if unused else []


def _check_workers(record, devices):
    """Compare this worker's record, devices and versions with those of worker 0.

    Raises:
        UsageError: they differ; names what.
    """
    own = {"record": record, "machine": {"devices": devices, "tensorflow": record["versions"]["tensorflow"], "code": record["git"]}}
    leading = json.loads(tflib.broadcast(json.dumps(own).encode()).decode())
    unlike = differences(leading["machine"], own["machine"]) + run_record.compare(leading["record"], record)
    found = [f"{name} {here}, worker 0 has {there}" for name, there, here in unlike]
    if found:
        raise UsageError(f"worker {tflib.workers().rank} was started with other options or data than worker 0: {'; '.join(found[:4])}")


@contextlib.contextmanager
def together():
    """Context of a training with other workers: it ends when one of them dies, and worker 0 alone speaks."""
    workers = tflib.workers()
    with contextlib.ExitStack() as stack:
        if not workers.leads:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        with workers.watched():
            yield
        tflib.leave_workers()


def _pretrained_config(record, asked, options, dataset):
    """Configuration of a network to start from: the snapshot's architecture, with those of the options that no variable depends on.

    Raises:
        UserError: it makes or takes pictures of another form than the dataset's, or cannot compute in the precision asked for.
    """
    _, parse = registry.find_parser(record.build_func_name)
    stored = parse(record.static_kwargs)[0]
    for field in ("resolution", "num_channels", "c_dim"):
        if getattr(stored, field) != getattr(asked, field):
            advice = {"c_dim": "" if stored.c_dim else " (--labels False leaves them out)",
                      "resolution": f" (prepare_data.py --resolution {stored.resolution} makes one that fits)"}.get(field, "")  # fmt: skip
            raise UserError(f"--pretrained-pkl {options.pretrained_pkl}: its {field} is {getattr(stored, field)}, "
                            f"dataset {dataset.name} has {getattr(asked, field)}{advice}")  # fmt: skip
    if options.precision == "mixed" and isinstance(stored, TransformerConfig):
        raise UserError(f"--pretrained-pkl {options.pretrained_pkl}: a ViTGAN, which computes in fp32; --precision mixed was asked for")
    both = {field.name for field in dataclasses.fields(asked)} & {field.name for field in dataclasses.fields(stored)}
    known = [field for field in HARMLESS_NETWORK_FIELDS if field in both]
    fitting = dataclasses.replace(stored, **{field: getattr(asked, field) for field in known})
    if fitting.cropped != stored.cropped:
        raise UserError(f"--pretrained-pkl {options.pretrained_pkl}: its layers are made for pictures of ratio "
                        f"{stored.crop_ratio or 1:.4g}, dataset {dataset.name} has {dataset.ratio:.4g}")  # fmt: skip
    return fitting


def _build_networks(plan, options):
    """G, D and Gs, with the values of the snapshot to start from if there is one."""
    if plan.pretrained is None:
        G = tflib.Network("G", plan.generator, seed=options.seed)
        # A seed of its own: ViTGAN's networks share names of variables, which choose their values.
        D = tflib.Network("D", plan.discriminator, seed=options.seed + 1)
        return {"G": G, "D": D, "Gs": G.clone("Gs")}
    networks = {name: build_network(record, name) for name, record in zip(("G", "D", "Gs"), plan.pretrained)}
    for name, network in networks.items():
        network.config = plan.discriminator if name == "D" else plan.generator
    print(f"starting from {options.pretrained_pkl}, with its architecture")
    return networks


def train(plan, options, dataset, devices, evaluate):
    """Run a planned training.

    Args:
        plan: TrainingPlan.
        options: training.command_line.Options.
        dataset: training.dataset.Dataset.
        devices: list of device strings.
        evaluate: function (Gs, snapshot path, run folder) -> dict metric name -> number, called in all workers.

    Returns:
        Whether it came to its end, in the worker that writes the files; False in the others.
    """
    leads = tflib.workers().leads
    outputs = OutputConfig(
        summarize=options.summarize and leads,
        truncation_psi=options.truncation_psi,
        keep_samples=options.keep_samples,
        last_snapshots=options.last_snapshots,
    )
    with tflib.session_scope():
        networks = _build_networks(plan, options)
        if plan.config.precision == "mixed":
            print(f"mixed precision: {tflib.half_type().name} at the four highest resolutions")
        counts = "  ".join(f"{name} {networks[name].parameter_count()[0]:,}" for name in ("G", "D"))
        labels = f", labels {list(dataset.labels.shape)}" if dataset.labels.shape[1] else ""
        images = f"{dataset.count:,} images of {dataset.resolution} pixels{labels}"
        print(f"run {plan.run_dir}  parameters {counts}  dataset {dataset.name}: {images}")
        loop = TrainingLoop(
            run_dir=plan.run_dir,
            networks=networks,
            config=plan.config,
            outputs=outputs,
            dataset=dataset,
            devices=devices,
            record=plan.record,
            evaluate=evaluate,
            state=plan.state,
            show=_reporter(plan.run_dir, options, dataset) if leads else None,
        )
        if leads and plan.state is not None:  # what the state does not fit must not become what --reload reads
            run_record.write_record(plan.run_dir, plan.record)
        try:
            with tflib.memory_errors(f"lower --batch-gpu (now {options.batch_gpu})"):
                return loop.run() and leads
        finally:
            if plan.lock is not None:
                plan.lock.close()


def _reporter(run_dir, options, dataset):
    """Function (Gs, images shown) that brings report.html up to date. What it cannot write must not end a training."""

    def show(Gs, shown):
        try:
            showcase.run(Gs, dataset, options, run_dir, shown)
            report.write(run_dir)
        except Exception as error:
            print(f"warning: report.html is not up to date: {type(error).__name__}: {error}".splitlines()[0], flush=True)

    return show


def choose_snapshot(options):
    """The snapshot that --eval and --vis use: --pretrained-pkl, or the newest readable one of the latest run.

    Raises:
        UserError: there is none.
    """
    run_dir = runs.latest_run(options.result_dir, options.expname)
    if options.pretrained_pkl != "None":
        path = local_path(options.pretrained_pkl)
        networks = read_records(path)
        run_dir = run_dir or runs.create_run(options.result_dir, options.expname)
        return Snapshot(path, run_dir, networks, run_record.find_record(os.path.dirname(path)))
    for path in reversed(training_state.snapshots(run_dir)):
        try:
            return Snapshot(path, run_dir, read_records(path), run_record.find_record(run_dir))
        except UserError as error:
            print(f"warning: {error}; the one before is used")
    raise UserError(f"--expname {options.expname}: {run_dir} has no readable snapshot")
