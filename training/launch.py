"""Launching what a command line asks for: devices, networks, training, snapshots."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from typing import NamedTuple

from dnnlib import UsageError, UserError, locks, option_table, tflib
from dnnlib.errors import not_fatal
from dnnlib.tflib import registry
from dnnlib.tflib.snapshot import build_network, local_path, read_records
from training import command_line, configure, report, run_choice, run_files, run_record, schedule, training_state
from training.config import OutputConfig, TrainingConfig, differences
from training.devices import open_devices
from training.networks.vitgan.config import TransformerConfig
from training.run_record import HARMLESS_NETWORK_FIELDS
from training.training_loop import TrainingLoop
from training.visualize import showcase


class TrainingPlan(NamedTuple):
    """A training that has passed all checks and can start."""

    run_dir: str | None                              # None in workers other than 0, which write no files
    config: TrainingConfig
    record: dict
    generator: object                                # configuration
    discriminator: object
    state: training_state.TrainingState | None       # to continue from
    pretrained: list | None                          # NetworkRecords to start from
    lock: object                                     # open file that keeps other trainings out of run_dir, or None
    notes: list                                      # for the user: what is continued, and what has changed


class Snapshot(NamedTuple):
    """A readable snapshot, and the run folder that takes the results for it."""

    path: str
    run_dir: str
    networks: list        # NetworkRecords of G, D and Gs
    trained: dict | None  # record of the run that it lies in


def init_devices(options):
    """Initialise TensorFlow on the requested devices; a training with several workers waits for the others here.

    Returns:
        list of device strings.
    """
    tflib.allow_tf32(options.precision == "tf32")
    workers = tflib.Workers.from_environment() if options.train else None
    devices = open_devices(options.gpus, options.ops, together=None if options.dry_run else workers)
    if options.train:
        schedule.rounds_per_step(options.batch_size, options.batch_gpu, len(devices) * workers.count)
    return devices


def print_networks(options, dataset):
    """Build the networks and print their layers and parameter counts."""
    _, generator, discriminator = planned(options, dataset)
    with tflib.session_scope():
        for name, config in (("G", generator), ("D", discriminator)):
            tflib.Network(name, config, seed=options.seed).print_layers()
            print()


def planned(options, dataset):
    """What a command that trains nothing shows of the training that its options describe.

    Returns:
        (options, generator's, discriminator's configuration); with --reload those with which the run would continue.

    Raises:
        UserError: see `start_configs`; or there is no such run.
    """
    record = None
    if options.reload and not options.restart:
        record = run_record.read_record(run_record.existing_run(options.result_dir, options.expname))
        options = run_choice.with_origin(options, record)
    return (options, *start_configs(options, dataset, record)[:2])


def plan_training(options, dataset, devices):
    """Check everything that a training needs before any network is built, and choose its run folder.

    Raises:
        UserError: the run cannot continue with these options, or the snapshot to start from does not fit.
    """
    leads = tflib.workers().leads
    found = run_choice.find_run(options) if leads else run_choice.FoundRun()
    with locks.freed_by_errors(found.lock), tflib.session_scope():
        state = training_state.share(found.state)
        if state is not None:
            options = run_choice.with_origin(options, state.record)
        generator, discriminator, pretrained = start_configs(options, dataset, state and state.record)
        config = configure.training_config(options)
        record = run_record.make_record(options, config, generator, discriminator, dataset)
        _check_workers(record, devices)
        run_dir, lock, notes = run_choice.enter_run(found, options, record) if leads else (None, None, [])
    return TrainingPlan(run_dir, config, record, generator, discriminator, state, pretrained, lock, notes)


def start_configs(options, dataset, continued=None):
    """Configurations that a training starts with: from the options, or with --pretrained-pkl from the snapshot that it names.

    Args:
        options: training.command_line.Options.
        dataset: training.dataset.Dataset.
        continued: record of the run that the training continues, which tells what the snapshot would; or None.

    Returns:
        (generator's, discriminator's, NetworkRecords of the snapshot to start from or None).

    Raises:
        UserError: the options contradict each other, or the snapshot does not fit them or the dataset.
    """
    pretrained, asked = None, (configure.generator_config(options, dataset), configure.discriminator_config(options, dataset))
    if options.pretrained_pkl == "None":
        return (*asked, None)
    if continued is not None and "networks" in continued:  # which runs of earlier versions lack: they still need the snapshot
        networks = zip(continued["networks"], (continued["generator"], continued["discriminator"]))
    else:
        option_table.check_source("--pretrained-pkl", options.pretrained_pkl)
        records = read_records(local_path(options.pretrained_pkl))
        pretrained = None if continued is not None else records
        networks = [(record.build_func_name, record.static_kwargs) for record in records[:2]]
    stored = [registry.find_parser(name)[1](arguments)[0] for name, arguments in networks]
    return (*(_fitted(*pair, options, dataset) for pair in zip(stored, asked)), pretrained)


def _check_workers(record, devices):
    """Compare this worker's record, devices and versions with those of worker 0.

    Raises:
        UsageError: they differ, in this worker or in another; names the first differences of this one.
    """
    own = {"record": record, "machine": {"devices": devices, "tensorflow": record["versions"]["tensorflow"], "code": record["git"]}}
    leading = json.loads(tflib.broadcast(json.dumps(own).encode()).decode())
    unlike = differences(leading["machine"], own["machine"]) + run_record.compare(leading["record"], record)
    found = [f"{name} {here}, worker 0 has {there}" for name, there, here in unlike]
    refused = [rank for rank, (count,) in enumerate(tflib.gather([len(found)])) if count]
    if refused:
        rank, what = (tflib.workers().rank, "; ".join(found[:4])) if found else (refused[0], "its own message names them")
        raise UsageError(f"worker {rank} was started with other options or data than worker 0: {what}")


@contextlib.contextmanager
def together():
    """Context of a training with other workers: it ends when one of them dies, and only worker 0 prints."""
    workers = tflib.workers()
    with contextlib.ExitStack() as stack:
        if not workers.leads:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
        with workers.watched():
            yield
        tflib.leave_workers()


def _fitted(stored, asked, options, dataset):
    """Configuration of a network to start from: the stored architecture, plus the options that no variable depends on.

    Raises:
        UserError: its images have a different shape from the dataset's, or it does not support the requested precision.
    """
    for field in ("resolution", "num_channels", "c_dim"):
        if getattr(stored, field) != getattr(asked, field):
            advice = {"c_dim": "" if stored.c_dim else " (--labels False leaves them out)",
                      "resolution": f" (prepare_data.py --resolution {stored.resolution} makes one that fits)"}.get(field, "")  # fmt: skip
            raise UserError(f"--pretrained-pkl {options.pretrained_pkl}: its {field} is {getattr(stored, field)}, "
                            f"dataset {dataset.name} has {getattr(asked, field)}{advice}")  # fmt: skip
    if options.precision == "mixed" and isinstance(stored, TransformerConfig):
        raise UserError(f"--pretrained-pkl {options.pretrained_pkl}: --precision mixed does not work with a ViTGAN, which computes in fp32")
    both = {field.name for field in dataclasses.fields(asked)} & {field.name for field in dataclasses.fields(stored)}
    known = [field for field in HARMLESS_NETWORK_FIELDS if field in both]
    fitting = dataclasses.replace(stored, **{field: getattr(asked, field) for field in known})
    if fitting.cropped != stored.cropped:
        raise UserError(f"--pretrained-pkl {options.pretrained_pkl}: its layers are made for pictures of ratio "
                        f"{stored.crop_ratio or 1:.4g}, dataset {dataset.name} has {dataset.ratio:.4g}")  # fmt: skip
    return fitting


def _build_networks(plan, options):
    """Build G, D and Gs, with the values of the snapshot to start from if there is one."""
    if plan.pretrained is None:
        G = tflib.Network("G", plan.generator, seed=options.seed)
        # A different seed: initial values depend on the variables' names, some of which ViTGAN's two networks share.
        D = tflib.Network("D", plan.discriminator, seed=options.seed + 1)
        return {"G": G, "D": D, "Gs": G.clone("Gs")}
    networks = {name: build_network(record, name) for name, record in zip(("G", "D", "Gs"), plan.pretrained)}
    for name, network in networks.items():
        network.config = plan.discriminator if name == "D" else plan.generator
    print(f"starting from {options.pretrained_pkl}, with its architecture")
    return networks


def _print_beginning(plan, networks, dataset):
    """Say what a training is about to do: precision, run, sizes of the networks and of the dataset."""
    if plan.config.precision == "mixed":
        print(f"mixed precision: {tflib.half_type().name} at the four highest resolutions")
    counts = "  ".join(f"{name} {networks[name].parameter_count()[0]:,}" for name in ("G", "D"))
    labels = f", labels {list(dataset.labels.shape)}" if dataset.labels.shape[1] else ""
    images = f"{dataset.count:,} images of {dataset.resolution} pixels{labels}"
    print(f"run {plan.run_dir}  parameters {counts}  dataset {dataset.name}: {images}")


def _output_config(options):
    return OutputConfig(
        summarize=options.summarize and tflib.workers().leads,
        truncation_psi=options.truncation_psi,
        keep_samples=options.keep_samples,
        last_snapshots=options.last_snapshots,
        batch_gpu=command_line.eval_batch_gpu(options),
    )


def train(plan, options, dataset, devices, evaluate):
    """Run a planned training.

    Args:
        plan: TrainingPlan.
        options: training.command_line.Options.
        dataset: training.dataset.Dataset.
        devices: list of device strings.
        evaluate: function (Gs, snapshot path, run folder) -> dict metric name -> number, called in all workers.

    Returns:
        Whether the training is complete, in worker 0; False in the others.
    """
    leads = tflib.workers().leads
    with contextlib.ExitStack() as stack:
        if plan.lock is not None:
            stack.enter_context(plan.lock)
        stack.enter_context(tflib.session_scope())
        networks = _build_networks(plan, options)
        _print_beginning(plan, networks, dataset)
        loop = TrainingLoop(
            run_dir=plan.run_dir,
            networks=networks,
            config=plan.config,
            outputs=_output_config(options),
            dataset=dataset,
            devices=devices,
            record=plan.record,
            evaluate=evaluate,
            state=plan.state,
            show=_reporter(plan.run_dir, options, dataset) if leads else None,
        )
        if leads and plan.state is not None:  # only now: --reload must not read options that the state did not fit
            run_record.write_record(plan.run_dir, plan.record)
        with tflib.memory_errors("--batch-gpu", options.batch_gpu):
            return loop.run() and leads


def _reporter(run_dir, options, dataset):
    """Function (Gs, images shown) that updates report.html; a failure must not end the training."""

    def show(Gs, shown):
        with not_fatal("report.html is not up to date"):
            showcase.run(Gs, dataset, options, run_dir, shown)
            report.write(run_dir)

    return show


def choose_snapshot(options, named):
    """The snapshot that --eval and --vis use: --pretrained-pkl, or the newest readable one of the latest run.

    Args:
        options: training.command_line.Options.
        named: whether --expname was given.

    Raises:
        UserError: there is none.
    """
    if options.pretrained_pkl != "None":
        path = local_path(options.pretrained_pkl)
        networks = read_records(path)
        return Snapshot(path, run_choice.results_run(path, options, named), networks, run_record.find_record(os.path.dirname(path)))
    run_dir = run_record.existing_run(options.result_dir, options.expname)
    path, networks = run_files.newest_readable(run_files.snapshots(run_dir), read_records)
    if path is None:
        raise UserError(f"--expname {options.expname}: {run_dir} has no snapshot")
    return Snapshot(path, run_dir, networks, run_record.find_record(run_dir))
