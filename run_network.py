#!/usr/bin/env python3
"""Train, evaluate and visualize: see --help, and docs/options.md for the same table."""

from __future__ import annotations

import dataclasses
import os
import re
import sys

import metrics
from dnnlib import UsageError, UserError, log, run_main, runs
from dnnlib.util import python_line
from training import command_line, report, run_record
from training.presets import DATASET_RATIOS, OPTIONS


def main(argv):
    """Parse, check, launch.

    Args:
        argv: list of command-line arguments.

    Returns:
        Exit code.
    """
    given = command_line.parse_given(argv)
    stored = _stored_options(given)
    options, _ = command_line.resolve(given, stored)
    if options.report and not (options.train or options.eval or options.vis):
        return _write_report(options)
    dataset = _open_dataset(options)
    options, notes = command_line.resolve(given, stored, dataset.resolution.bit_length() - 1)
    for note in notes:
        print(note)
    if options.dry_run:
        return _dry_run(options, dataset)
    _check_folders(options)
    metric_options = _metric_options(options, given)
    metric_names = _resolve_metrics(options, metric_options, dataset)
    from training import launch  # TensorFlow is imported here, after all that can be checked without it

    devices = launch.init_devices(options)
    if not (options.train or options.eval or options.vis):
        launch.print_networks(options, dataset)
        return 0
    command = f"command: {python_line(['run_network.py', *argv])}"
    if options.train:
        with launch.together():
            plan = launch.plan_training(options, dataset, devices)
            with log.tee(os.path.join(plan.run_dir, "log.txt") if plan.run_dir else os.devnull):
                print("\n".join([command, *plan.notes]))
                finished = launch.train(plan, options, dataset, devices, _evaluator(metric_names, metric_options, dataset))
        if not finished:
            return 0
        options = dataclasses.replace(options, pretrained_pkl="None")  # what follows is about the networks just trained
    if _images_dir(options):
        _evaluate_folder(command, options, dataset, metric_names, metric_options)
    if _needs_snapshot(options):
        snapshot = launch.choose_snapshot(options)
        with log.tee(os.path.join(snapshot.run_dir, "log.txt")):
            if not (options.train or _images_dir(options)):
                print(command)
            _use_snapshot(snapshot, options, dataset, metric_names, _metric_options(options, given, snapshot.trained))
    return 0


def _images_dir(options):
    """The folder that --eval scores instead of a network, or None: with --prepare, --images-dir names the images to prepare."""
    return options.images_dir if options.eval and not options.prepare else None


def _needs_snapshot(options):
    return options.vis or (options.eval and not _images_dir(options))


def _check_folders(options):
    """The files and folders that the verbs need, as far as names alone tell.

    Raises:
        UserError: the results cannot be written, or there is no snapshot to start from or to look at.
    """
    if options.train or options.eval or options.vis:
        runs.check_writable(options.result_dir)
    given = options.pretrained_pkl != "None"
    if given:
        command_line.check_source("--pretrained-pkl", options.pretrained_pkl)
    if _needs_snapshot(options) and not (options.train or given):
        runs.existing_run(options.result_dir, options.expname)


def _metric_options(options, given, trained=None):
    """metrics.Options; real images are mirrored as the flag says, without it where the preset or the training (its record) did."""
    mirrored = bool(trained) and "mirror_augment" not in given and bool(trained["training"]["mirror_augment"])
    return metrics.Options(
        images_num=options.eval_images_num,
        protocol=options.eval_protocol,
        batch_size=options.batch_gpu,
        seed=options.seed,
        mirror=options.mirror_augment or mirrored,
        features_dir=options.features_dir,
        resize=options.eval_resize,
        images_dir=_images_dir(options),
    )


def _resolve_metrics(options, metric_options, dataset):
    """The metrics that can be evaluated. UserError where there are none and nothing else is to be done."""
    if not (options.train or options.eval):
        return []
    names = metrics.resolve(options.metrics, metric_options, dataset)
    if not (names or options.train or options.vis or options.metrics in ((), ("none",))):
        raise UserError(f"--metrics {','.join(options.metrics)}: none of them can be evaluated, see the warnings")
    return names


def _evaluator(names, options, dataset):
    """Function (Gs, snapshot path, run folder) -> dict metric name -> number, which also prints the results.

    Gs and the snapshot are None where a folder of images is evaluated, the snapshot alone where it could not be saved.
    """

    def evaluate(Gs, snapshot, run_dir):
        name = metrics.snapshot_name(snapshot, run_dir)
        results = metrics.evaluate(names, Gs, dataset, dataclasses.replace(options, snapshot=name, run_dir=run_dir))
        for result in results:
            print(result.summary(), flush=True)
        return {name: value for result in results for name, value in result.values.items()}

    return evaluate


def _evaluate_folder(command, options, dataset, metric_names, metric_options):
    """--eval --images-dir: results go to the latest run of the name, or to a new one."""
    run_dir = runs.latest_run(options.result_dir, options.expname) or runs.create_run(options.result_dir, options.expname)
    with log.tee(os.path.join(run_dir, "log.txt")):
        print(command)
        numbers = _evaluator(metric_names, metric_options, dataset)(None, None, run_dir)
        print(f"results in {run_dir}")
    _require_numbers(metric_names, numbers)


def _use_snapshot(snapshot, options, dataset, metric_names, metric_options):
    """--eval and --vis of a snapshot."""
    from dnnlib import tflib
    from dnnlib.tflib.snapshot import build_network
    from training import visualize

    print(f"snapshot {snapshot.path}")
    evaluated = metric_names if options.eval and not _images_dir(options) else []
    if evaluated and snapshot.trained:
        run_record.check_ratio(snapshot.trained, dataset)
    if options.vis:
        visualize.check(snapshot.networks[2], dataset, options)
    with tflib.session_scope(), tflib.memory_errors(f"lower --batch-gpu (now {options.batch_gpu})"):
        Gs = build_network(snapshot.networks[2], "Gs")
        if not Gs.config.c_dim and dataset.labels.shape[1]:
            print(f"dataset {dataset.name}: its labels are not used, the snapshot was trained without them")
            dataset.labels = dataset.labels[:, :0]
        numbers = _evaluator(evaluated, metric_options, dataset)(Gs, snapshot.path, snapshot.run_dir)
        if options.vis:
            visualize.run(Gs, dataset, options, os.path.join(snapshot.run_dir, "visuals"), shown=_images_shown(snapshot.path))
    print(f"report {report.write(snapshot.run_dir)}")
    _require_numbers(evaluated, numbers)


def _require_numbers(metric_names, numbers):
    """Raise UserError where every metric that was evaluated has failed."""
    if metric_names and not numbers:
        raise UserError(f"--metrics {','.join(metric_names)}: none of them could be computed, see the warnings")


def _images_shown(path):
    """Images shown to a network until a snapshot of a training, to the thousand; None when the file's name does not say it."""
    number = re.fullmatch(r"network-snapshot-(\d+)\.pkl", os.path.basename(path))
    return None if number is None else 1000 * int(number.group(1))


def _write_report(options):
    """--report alone: from the files of the latest run, without TensorFlow."""
    print(f"report {report.write(runs.existing_run(options.result_dir, options.expname))}")
    return 0


def _stored_options(given):
    """The options stored in the latest run, for --reload; None without it."""
    if not given.get("reload"):
        return None
    defaults = command_line.Options()
    result_dir, expname = given.get("result_dir", defaults.result_dir), given.get("expname", defaults.expname)
    folder = runs.latest_run(result_dir, expname)
    if folder is None:
        raise UserError(f"--reload: there is no run {expname} in {result_dir}")
    stored = dict(run_record.read_record(folder)["options"])
    for option in OPTIONS:
        if option.of_the_call:
            stored.pop(option.name, None)
    if not given.get("train"):
        stored.pop("pretrained_pkl", None)  # what the run started from is not what it arrived at
    return stored


def _open_dataset(options):
    """The dataset of the options, checked.

    Raises:
        UsageError: none is named, or it has another resolution than --resolution.
        UserError: it cannot be read.
    """
    if options.dataset is None:
        raise UsageError("--dataset: the name of a prepared dataset is needed")
    folder = os.path.join(options.data_dir, options.dataset)
    if options.prepare and not os.path.isdir(folder):
        _prepare(options)
    if not os.path.isdir(folder):
        raise UserError(f"--dataset {options.dataset}: there is no folder {folder} (prepare_data.py makes it; --data-dir says where)")
    from training.dataset import Dataset

    dataset = Dataset(folder, ratio=options.ratio, max_images=options.train_images_num, num_threads=options.num_threads)
    if (options.train_images_num or 0) > dataset.count:
        print(f"--train-images-num {options.train_images_num}: there are only {dataset.count}")
    if options.ratio is None and not dataset.stores_ratio and options.dataset in DATASET_RATIOS:
        dataset.ratio = DATASET_RATIOS[options.dataset]
    if options.resolution is not None and options.resolution != dataset.resolution:
        raise UsageError(f"--resolution {options.resolution}: dataset {options.dataset} has {dataset.resolution}")
    if not options.labels and dataset.labels.shape[1]:
        print(f"dataset {dataset.name}: its labels ({dataset.labels.shape[1]} wide) are not used (--labels False)")
        dataset.labels = dataset.labels[:, :0]
    return dataset


def _prepare(options):
    """--prepare: make the dataset with those options of prepare_data.py that this command has too."""
    from dataset_tool import cli

    wanted = cli.options_for(options.dataset, data_dir=options.data_dir, ratio=options.ratio, resolution=options.resolution,
                             max_images=options.train_images_num, images_dir=options.images_dir)  # fmt: skip
    try:
        cli.prepare(wanted)
    except UsageError as error:
        raise UsageError(f"--prepare: {error} (prepare_data.py has more options)") from error


def _dry_run(options, dataset):
    """--dry-run: the resolved configuration, and what the training would need."""
    from dnnlib import tflib
    from training import configure, estimate, launch
    from training.config import describe

    devices = launch.init_devices(options)
    generator, discriminator, _ = launch.start_configs(options, dataset)
    training = configure.training_config(options)
    for title, config in (("options", options), ("generator", generator), ("discriminator", discriminator), ("training", training)):
        print(f"{title}:\n{describe(config)}\n")
    print("\n".join(["estimate:", *estimate.lines(generator, discriminator, training, devices, tflib.Workers.from_environment().count)]))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
