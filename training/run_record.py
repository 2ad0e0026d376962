"""The record of what a run is made from: config.json, and the comparison with it when a run continues."""

from __future__ import annotations

import json
import os
import platform
import subprocess

from dnnlib import UsageError, UserError, atomic_output, runs
from dnnlib.files import read_object
from dnnlib.util import usable_cores
from training.config import differences, to_dict
from training.manifest import CLASS_KINDS

FILE_NAME = "config.json"
SECTIONS = ("generator", "discriminator", "training", "dataset")
# What may change freely: it affects neither the networks' variables nor which images they have seen.
HARMLESS_NETWORK_FIELDS = ("style_mixing", "component_mixing", "component_dropout", "attention_dropout", "truncation_psi", "fused_modconv",
                           "crop_ratio")  # fmt: skip
HARMLESS_FIELDS = {"generator": HARMLESS_NETWORK_FIELDS, "discriminator": HARMLESS_NETWORK_FIELDS, "dataset": ("label_names",)}
# What records of earlier versions lack although the runs had it.
LATER_FIELDS = ("generator.crop_ratio", "discriminator.crop_ratio", "generator.square", "discriminator.square", "versions.ops",
                "dataset.label_names")  # fmt: skip


def make_record(options, training, generator, discriminator, dataset):
    """The JSON-ready record of what a run is made from.

    Args:
        options: training.command_line.Options.
        training: TrainingConfig.
        generator, discriminator: network configurations.
        dataset: training.dataset.Dataset.
    """
    from dnnlib.tflib import registry  # late: imports TensorFlow

    classes = dataset.labels.shape[1]
    names = dataset.label_names[:classes] if dataset.label_kind in CLASS_KINDS else []
    return {
        "options": to_dict(options),
        "training": to_dict(training),
        "generator": to_dict(generator),
        "discriminator": to_dict(discriminator),
        "networks": [registry.find_for(config).name for config in (generator, discriminator)],
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint, "count": dataset.count, "resolution": dataset.resolution,
                    "channels": dataset.channels, "ratio": dataset.ratio, "classes": classes,
                    "label_names": names},  # fmt: skip
        "versions": versions(),
        "git": git_revision(),
    }


def versions():
    """Versions of the software that computes the numbers, with the ops as chosen by now; bit-identical weights need identical ones."""
    import numpy
    import tensorflow.compat.v1 as tf

    from ops import implementation

    return {"python": platform.python_version(), "tensorflow": tf.__version__, "numpy": numpy.__version__, "cpus": usable_cores(),
            "ops": "compiled" if implementation.library(None) else "reference"}  # fmt: skip


def git_revision():
    """Git revision of this code (with "+" if there are local changes), or None outside a git checkout."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        found = subprocess.run(["git", "-C", folder, "describe", "--always", "--dirty=+", "--exclude=*"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    except OSError:
        return None
    return found.stdout.strip() or None


def write_record(run_dir, record):
    """Write config.json atomically."""
    with atomic_output(os.path.join(run_dir, FILE_NAME), "w") as file:
        json.dump(record, file, indent=2, sort_keys=True)
        file.write("\n")


def read_record(run_dir):
    """The record in a run's config.json.

    Raises:
        UserError: there is none.
    """
    record = find_record(run_dir)
    if record is None:
        raise UserError(f"{os.path.join(run_dir, FILE_NAME)}: missing, damaged, or not the configuration of a run")
    return record


def find_record(folder):
    """The record in the config.json of a folder; None without one: other programs also write files of that name."""
    record = read_object(os.path.join(folder, FILE_NAME))
    return record if record.keys() >= {"options", *SECTIONS} else None


def label_names(folder):
    """Names of the classes, from the record in a folder; none without one, and in those of earlier versions."""
    record = find_record(folder)
    return list(map(str, record["dataset"].get("label_names", []))) if record else []


def was_trained(run_dir):
    """Whether a training has written into a run's folder: others hold results for images, or for a snapshot from elsewhere."""
    return any(name == FILE_NAME or name.endswith(".pkl") for name in os.listdir(run_dir))


def trained_run(result_dir, expname):
    """Folder of the latest run of this name that was trained, or None."""
    folders = [path for _, path in runs.find_runs(result_dir, expname)]
    return next(filter(was_trained, reversed(folders)), None)


def latest_run(result_dir, expname):
    """As `trained_run`; if none was trained, folder of the latest run with results alone."""
    return trained_run(result_dir, expname) or runs.latest_run(result_dir, expname)


def existing_run(result_dir, expname, trained=True):
    """As `trained_run`, or `latest_run` if not `trained`, but raises UserError if there is none."""
    find, kind = (trained_run, "trained run") if trained else (latest_run, "run")
    folder = find(result_dir, expname)
    if folder is None:
        bare = os.path.join(result_dir, expname)
        hint = f" (there is a folder {bare}: {_hint(bare)})" if os.path.isdir(bare) else ""
        raise UserError(f"--expname {expname}: there is no {kind} of that name in {result_dir}{hint}")
    return folder


def _hint(folder):
    """What is wrong with a run's folder as a name."""
    name = runs.run_name(folder)
    return f"its run is named {name}" if name else f"the name of a run's folder is {os.path.basename(folder)}-<NNN>"


def check_continuation(old, new, options):
    """Compare a stored record with the present one.

    Args:
        old, new: records.
        options: training.command_line.Options.

    Returns:
        list of notes, one for each difference.

    Raises:
        UsageError: the dataset, the networks or the batch size differ and that was not accepted; the differences are printed first.
    """
    changes, dangerous = [], []
    for name, before, after in compare(old, new, (*SECTIONS, "versions")):
        changes.append(f"{name} changed from {before} to {after}")
        section, _, field = name.partition(".")
        if field == "schedule.batch_size" or section not in ("training", "versions") and field not in HARMLESS_FIELDS.get(section, ()):
            dangerous.append(name)
    if dangerous and not options.accept_changes:
        print("\n".join(changes))
        listed = ", ".join(dangerous[:4]) + (f" and {len(dangerous) - 4} more" if len(dangerous) > 4 else "")
        own = "" if options.reload else "--reload to use its own options, "
        raise UsageError(f"this run was trained with a different {listed}: give {own}--restart to start a new run, or --accept-changes to "
                         "continue all the same")  # fmt: skip
    return changes


def compare(old, new, sections=SECTIONS):
    """Differences between two records, by default in what they say of the weights: list of (name, old value, new value)."""
    found = differences({k: old.get(k, {}) for k in sections}, {k: new.get(k, {}) for k in sections})
    return [change for change in found if change[1] is not None or change[0] not in LATER_FIELDS]
