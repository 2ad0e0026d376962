#!/usr/bin/env python3
"""Train, evaluate and visualize: see --help, and docs/options.md for the same table."""

import dnnlib  # noqa: F401 isort: skip (it says what this Python lacks)

import dataclasses
import os
import sys

import metrics
from dnnlib import UsageError, UserError, log, option_table, run_main, runs
from dnnlib.util import python_line
from training import command_line, report, run_files, run_record
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
    return _launch(f"command: {python_line(['run_network.py', *argv])}", given, options, dataset)


def _launch(command, given, options, dataset):
    """Do what the options ask for: train, evaluate, visualize, or print the networks. Returns the exit code."""
    _check_folders(options)
    metric_options = _metric_options(options, given)
    evaluator = _Evaluator(_resolve_metrics(options, metric_options, dataset), metric_options, dataset)
    from training import launch  # TensorFlow is imported here, after all that can be checked without it

    devices = launch.init_devices(options)
    if not (options.train or options.eval or options.vis):
        launch.print_networks(options, dataset)
        return 0
    if options.train and not _train(command, options, dataset, devices, evaluator):
        return 0
    if _images_dir(options):
        _evaluate_folder(command, options, evaluator)
    scored = options.eval
    if options.train:  # what follows is about the networks just trained, whose metrics the training may have computed already
        options = dataclasses.replace(options, pretrained_pkl="None", eval=options.eval and evaluator.numbers is None)
    if _needs_snapshot(options):
        snapshot = launch.choose_snapshot(options, named="expname" in given)
        evaluator.options = _metric_options(options, given, snapshot.trained)
        with log.tee(os.path.join(snapshot.run_dir, "log.txt")):
            if not (options.train or _images_dir(options)):
                print(command)
            _use_snapshot(snapshot, options, dataset, evaluator)
    if scored:
        _require_numbers(evaluator.names, evaluator.numbers)
    return 0


def _train(command, options, dataset, devices, evaluator):
    """--train. Returns whether it came to its end, in worker 0; False in the others, which have nothing to do afterwards."""
    from training import launch

    with launch.together():
        plan = launch.plan_training(options, dataset, devices)
        with log.tee(os.path.join(plan.run_dir, "log.txt") if plan.run_dir else os.devnull):
            print("\n".join([command, *plan.notes]))
            return launch.train(plan, options, dataset, devices, evaluator)


def _images_dir(options):
    """The folder that --eval scores instead of a network, or None. (With --prepare, --images-dir is the images to prepare.)"""
    return options.images_dir if options.eval and not options.prepare else None


def _needs_snapshot(options):
    return options.vis or (options.eval and not _images_dir(options))


def _check_folders(options):
    """Check the files and folders that the options need, as far as that is possible without opening them.

    Raises:
        UserError: results cannot be written, or there is no snapshot to evaluate or to visualize.
    """
    if options.train or options.eval or options.vis:
        runs.check_writable(options.result_dir)
    if _needs_snapshot(options) and not options.train:
        if options.pretrained_pkl != "None":
            option_table.check_source("--pretrained-pkl", options.pretrained_pkl)
        else:
            run_record.existing_run(options.result_dir, options.expname)


def _metric_options(options, given, trained=None):
    """The metrics.Options. Real images are mirrored if the flag or preset says so; without the flag, also if the training did.

    Args:
        options, given: see training.command_line.
        trained: record of the run that the snapshot lies in, or None.
    """
    mirrored = bool(trained) and "mirror_augment" not in given and bool(trained["training"]["mirror_augment"])
    return metrics.Options(
        images_num=options.eval_images_num,
        protocol=options.eval_protocol,
        batch_size=command_line.eval_batch_gpu(options),
        seed=options.seed,
        mirror=options.mirror_augment or mirrored,
        features_dir=options.features_dir,
        resize=options.eval_resize,
        images_dir=_images_dir(options),
        tf32=options.precision == "tf32",
    )


def _resolve_metrics(options, metric_options, dataset):
    """Names of the metrics that can be evaluated. Raises UserError if there are none and nothing else is to be done."""
    if not (options.train or options.eval):
        return []
    workers = _workers() if options.train else None
    names = metrics.resolve(options.metrics, metric_options, dataset, collects=workers is None or workers.leads)
    if not (names or options.train or options.vis or options.metrics in ((), ("none",))):
        raise UserError(f"--metrics {','.join(options.metrics)}: none of them can be evaluated, see the warnings")
    return names


def _workers():
    """The workers that TF_CONFIG names; None if it is not set."""
    if not os.environ.get("TF_CONFIG"):
        return None
    from dnnlib import tflib  # takes seconds to import

    return tflib.Workers.from_environment()


class _Evaluator:
    """Computes metrics and prints them.

    Args:
        names: of the metrics.
        options: metrics.Options.
        dataset: training.dataset.Dataset.

    Attributes:
        numbers: results of the last call, dict metric name -> number; None before the first one.
    """

    def __init__(self, names, options, dataset):
        self.names, self.options, self.numbers = names, options, None
        self._dataset = dataset

    def __call__(self, Gs, snapshot, run_dir):
        """Evaluate a generator or, where Gs and the snapshot are None, a folder of images.

        Args:
            Gs: tflib.Network.
            snapshot: path of its snapshot, None where it could not be saved.
            run_dir: folder that takes the results.

        Returns:
            dict metric name -> number.
        """
        options = dataclasses.replace(self.options, snapshot=metrics.snapshot_name(snapshot, run_dir), run_dir=run_dir)
        results = metrics.evaluate(self.names, Gs, self._dataset, options)
        for result in results:
            print(result.summary(), flush=True)
        self.numbers = {name: value for result in results for name, value in result.values.items()}
        return self.numbers


def _require_numbers(metric_names, numbers):
    """Raise UserError if every metric that was evaluated has failed."""
    if metric_names and not numbers:
        raise UserError(f"--metrics {','.join(metric_names)}: none of them could be computed, see the warnings")


def _evaluate_folder(command, options, evaluator):
    """--eval --images-dir: results go to the latest run of that name, or to a new one."""
    run_dir = run_record.latest_run(options.result_dir, options.expname) or runs.create_run(options.result_dir, options.expname)
    with log.tee(os.path.join(run_dir, "log.txt")):
        print(command)
        evaluator(None, None, run_dir)
        print(f"report {report.write(run_dir)}")


def _use_snapshot(snapshot, options, dataset, evaluator):
    """--eval and --vis of a snapshot."""
    from dnnlib import tflib
    from dnnlib.tflib.snapshot import build_network
    from training import visualize

    print(f"snapshot {snapshot.path}")
    evaluated = options.eval and not _images_dir(options)
    if options.vis:
        visualize.check(snapshot.networks[2], dataset, options)
    with tflib.session_scope(), tflib.memory_errors("--eval-batch-gpu", command_line.eval_batch_gpu(options)):
        Gs = build_network(snapshot.networks[2], "Gs")
        if not Gs.config.c_dim and dataset.labels.shape[1]:
            print(f"dataset {dataset.name}: its labels are not used, the snapshot was trained without them")
            dataset.labels = dataset.labels[:, :0]
        if evaluated:
            evaluator(Gs, snapshot.path, snapshot.run_dir)
        if options.vis:
            kimg = run_files.snapshot_kimg(os.path.basename(snapshot.path))
            shown = None if kimg is None else 1000 * kimg
            visualize.run(Gs, dataset, options, os.path.join(snapshot.run_dir, "visuals"), shown=shown)
    print(f"report {report.write(snapshot.run_dir)}")


def _write_report(options):
    """--report alone: from the latest run's files, without TensorFlow."""
    run_dir = run_record.existing_run(options.result_dir, options.expname, trained=False)
    print(f"report {report.write(run_dir)}")
    return 0


def _stored_options(given):
    """The options stored in the latest trained run, for --reload; None without it."""
    if not given.get("reload"):
        return None
    defaults = command_line.Options()
    result_dir, expname = given.get("result_dir", defaults.result_dir), given.get("expname", defaults.expname)
    stored = dict(run_record.read_record(run_record.existing_run(result_dir, expname))["options"])
    for option in OPTIONS:
        if option.of_the_call:
            stored.pop(option.name, None)
    if not given.get("train"):
        stored.pop("pretrained_pkl", None)  # what the run started from is not what it has become
    return stored


def _open_dataset(options):
    """Open the dataset that the options name.

    Raises:
        UsageError: none is named, or its resolution is not --resolution.
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

    dataset = Dataset(folder, options.ratio, options.train_images_num, options.num_threads, options.resolution)
    if (options.train_images_num or 0) > dataset.count:
        print(f"--train-images-num {options.train_images_num}: the dataset has only {dataset.count}")
    if options.ratio is None and not dataset.stores_ratio and options.dataset in DATASET_RATIOS:
        dataset.ratio = DATASET_RATIOS[options.dataset]
    if options.resolution is not None and options.resolution != dataset.resolution:
        raise UsageError(f"--resolution {options.resolution}: dataset {options.dataset} has {dataset.resolution}")
    if not options.labels and dataset.labels.shape[1]:
        print(f"dataset {dataset.name}: its labels ({dataset.labels.shape[1]} wide) are not used (--labels False)")
        dataset.labels = dataset.labels[:, :0]
    return dataset


def _prepare(options):
    """--prepare: make the dataset with those options of prepare_data.py that this command has too.

    Raises:
        UsageError: an option is missing or does not fit, or this is one of several workers, which would get in each other's way.
    """
    from dataset_tool import cli

    workers = _workers()
    if workers is not None and workers.count > 1:
        raise UsageError(f"--prepare: dataset {options.dataset} does not exist yet, and several workers (TF_CONFIG) cannot prepare it "
                         "together; prepare it before they start")  # fmt: skip
    wanted = cli.options_for(options.dataset, data_dir=options.data_dir, ratio=options.ratio, resolution=options.resolution,
                             max_images=options.train_images_num, images_dir=options.images_dir)  # fmt: skip
    try:
        cli.prepare(wanted)
    except UsageError as error:
        raise UsageError(f"--prepare: {error} (prepare_data.py has more options)") from error


def _dry_run(options, dataset):
    """--dry-run: print the resolved configuration and what the training would need."""
    from dnnlib import tflib
    from training import configure, estimate, launch
    from training.config import describe

    devices = launch.init_devices(options)
    options, generator, discriminator = launch.planned(options, dataset)
    training = configure.training_config(options)
    for title, config in (("options", options), ("generator", generator), ("discriminator", discriminator), ("training", training)):
        print(f"{title}:\n{describe(config)}\n")
    print("\n".join(["estimate:", *estimate.lines(generator, discriminator, training, devices, tflib.Workers.from_environment().count)]))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
