"""The command line of the preparation: options, their checks, and what is printed."""

from __future__ import annotations

import argparse
import os

from dataset_tool import check, labels, pictures, sources, writer
from dataset_tool.catalog import CATALOG
from dataset_tool.formats import FORMATS
from dnnlib import UsageError
from training.manifest import load_labels

SCENES_COUNT, SCENES_RESOLUTION = 10000, 64


def add_options(parser):
    """Add every option of the preparation to an argparse parser."""
    add = parser.add_argument
    add("--data-dir", default="datasets", metavar="DIR", help="folder of the datasets (%(default)s)")
    for name, entry in CATALOG.items():
        add(f"--{name}", action="store_true", help=f"prepare {name}: {entry.help}")
    add("--scenes", action="store_true", help=f"draw procedural scenes, {SCENES_COUNT} of {SCENES_RESOLUTION} pixels unless told otherwise")
    add("--task", metavar="NAME", help="prepare your own pictures as dataset NAME (with --scenes: its name)")
    add("--images-dir", metavar="PATH", help="where they are: a folder, or the file or database of the format")
    add("--format", choices=sorted(FORMATS), default="png", help="their format (%(default)s)")
    add("--ratio", type=_ratio, metavar="R", help="height / width to crop to, above 0, up to 1 (the catalog's, else 1)")
    add("--resolution", type=_power_of_two, metavar="N", help="width of the stored squares, a power of two (256, or the format's own)")
    add("--channels", type=int, choices=sorted(pictures.MODES), default=3, help="1 gray, 3 RGB, 4 RGB with alpha (%(default)s)")
    add("--max-images", type=_positive, metavar="N", help="only the first N pictures; the number of scenes")
    add("--shards-num", type=_positive, metavar="N", help="record files (the catalog's, else 1 for every 20,000 pictures)")
    add("--labels", metavar="WHAT", help=f"{labels.ACCEPTED} (the source's own if it has any)")
    add("--encoding", choices=pictures.ENCODINGS, default="png", help="png, raw for older readers, jpeg is lossy (%(default)s)")
    add("--num-workers", type=_positive, default=os.cpu_count() or 1, metavar="N", help="processes that convert (one a core)")
    add("--allow-skips", action="store_true", help="go on when more than 1 %% of the pictures cannot be used")
    add("--key", metavar="NAME", help="hdf5: the array of the pictures; tfds: the feature (the only one that fits)")
    add("--masks", action="store_true", help="with --scenes: store which object every pixel shows")
    add("--seed", type=_natural, default=0, metavar="N", help="with --scenes: another seed, other scenes (%(default)s)")
    add("--originals", action="store_true", help="with --clevr: the 18 GB of original images instead of the 6 GB of records")
    add("--mirror", metavar="URL", help="take the catalog's files, by their names, from another server")
    add("--check", metavar="DIR", help="only report on the pictures in DIR: sizes, modes, unusable files")
    add("--debug", action="store_true", help="show a traceback of errors")


class _Parser(argparse.ArgumentParser):
    """Mistakes are one line, without the usage."""

    def error(self, message):
        raise UsageError(message)


def _integer(text, accepted, holds):
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not holds(value):
        raise argparse.ArgumentTypeError(f"{text}; accepted: {accepted}")
    return value


def _positive(text):
    return _integer(text, "1 or more", lambda value: value >= 1)


def _natural(text):
    return _integer(text, "0 or more", lambda value: value >= 0)


def _power_of_two(text):
    return _integer(text, "a power of two, 4 to 4096", lambda value: 4 <= value <= 4096 and value & (value - 1) == 0)


def _ratio(text):
    try:
        numerator, _, denominator = text.partition("/")
        value = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}; accepted: height / width above 0, up to 1, also as 188/256")
    return value


def main(argv):
    """Prepare what the arguments ask for. Returns the exit code."""
    parser = _Parser(prog="prepare_data.py", description="Prepare datasets: download, convert and check pictures.")
    add_options(parser)
    options = parser.parse_args(argv)
    if options.check:
        form = pictures.Form(options.resolution or sources.Source.default_resolution, options.channels, options.ratio or 1.0)
        return check.report(options.check, form)
    prepare(options)
    return 0


def options_for(dataset, argv):
    """The options of preparing a dataset by name: one of the catalog, `scenes`, or else a --task of that name.

    Args:
        dataset: its name.
        argv: list of further arguments (--data-dir, --images-dir, ...).

    Returns:
        The namespace for `prepare`.
    """
    parser = _Parser(prog="--prepare")
    add_options(parser)
    named = [f"--{dataset}"] if dataset in CATALOG or dataset == "scenes" else ["--task", dataset]
    return parser.parse_args([*named, *argv])


def prepare(options):
    """Prepare the datasets that the options ask for.

    Args:
        options: namespace with every option of `add_options`.

    Returns:
        List of their Manifests.

    Raises:
        UsageError: nothing, or something impossible, is asked for.
        UserError: the input, a download or the disk is at fault.
    """
    _check_usage(options)
    manifests = [_prepare_from_catalog(name, options) for name in CATALOG if getattr(options, name)]
    if options.scenes:
        count, resolution = options.max_images or SCENES_COUNT, options.resolution or SCENES_RESOLUTION
        source = sources.scenes_source(count, options.seed, resolution, options.masks)
        manifests.append(_write(options.task or "scenes", source, options))
    elif options.task:
        source = FORMATS[options.format](options)
        manifests.append(_write(options.task, source, options))
    return manifests


def _check_usage(options):
    wanted = [f"--{name}" for name in (*CATALOG, "scenes") if getattr(options, name)]
    if options.task and not options.scenes:
        wanted.append(f"--task {options.task}")
        if not options.images_dir and options.format != "tfds":
            raise UsageError(f"--task {options.task}: --images-dir, the place of the pictures, is needed")
    if not wanted:
        raise UsageError(f"nothing to prepare; accepted: {', '.join('--' + name for name in CATALOG)}, --scenes, --task NAME, --check DIR")
    for flag, given, needs, there in (
        ("--images-dir", options.images_dir, "--task", options.task),
        ("--masks", options.masks, "--scenes", options.scenes),
        ("--seed", options.seed, "--scenes", options.scenes),
        ("--originals", options.originals, "--clevr", options.clevr),
        ("--mirror", options.mirror, "a dataset of the catalog", any(getattr(options, name) for name in CATALOG)),
        ("--format", options.format != "png", "pictures of your own (--task)", options.task and not options.scenes),
        ("--key", options.key, "--format hdf5 or tfds", options.format in ("hdf5", "tfds")),
    ):
        if given and not there:
            raise UsageError(f"{flag}: only with {needs}")
    if options.images_dir and options.scenes:
        raise UsageError("--images-dir: --scenes draws its own pictures")
    if options.encoding == "jpeg" and options.channels == 4:
        raise UsageError("--encoding jpeg: accepted with --channels 1 or 3")
    if options.task and (os.path.basename(options.task) != options.task or options.task.startswith(".")):
        raise UsageError(f"--task {options.task}: accepted: a name without / that does not begin with a dot")


def _prepare_from_catalog(name, options):
    entry = CATALOG[name]
    source = entry.fetch(options)
    return _write(name, source, options, entry.ratio, entry.shards)


def _write(name, source, options, ratio=1.0, shards=None):
    count = min(source.count, options.max_images or source.count)
    if options.max_images and options.max_images > source.count:
        print(f"--max-images {options.max_images}: there are only {source.count}")
    form = pictures.Form(options.resolution or source.default_resolution, options.channels, options.ratio or ratio, options.encoding)
    attached = labels.attach(source, options.labels)
    if options.shards_num and options.shards_num > count:
        raise UsageError(f"--shards-num {options.shards_num}: accepted: 1 to the number of pictures, {count}")
    shards = min(options.shards_num or shards or -(-count // 20000), count)
    described = ""
    if attached:
        described = sources.digest([attached.names, attached.kind, b"" if attached.values is None else attached.values[:count].tobytes()])
    plan = writer.Plan(name, form, shards, count, source.description, source.identity, described)
    for note in source.notes:
        print(note)
    manifest, was_there = writer.write_dataset(options.data_dir, plan, source, options.num_workers, options.allow_skips)
    _print_summary(options.data_dir, manifest, was_there)
    if attached is None and source.subfolders > 1:
        print(f"  the names of the {source.subfolders} sub-folders are not used; --labels folders makes them labels")
    return manifest


def _print_summary(data_dir, manifest, was_there):
    folder = os.path.join(data_dir, manifest.name)
    size = sum(shard.bytes for shard in manifest.shards)
    width, state = manifest.resolution, "there already, " if was_there else ""
    print(f"{folder}: {state}{manifest.count:,} images of {width} x {width} pixels, {manifest.channels} channels, "
          f"ratio {manifest.ratio:.4g}, {manifest.encoding}, {len(manifest.shards)} shards, {size / 1e6:,.1f} MB")
    for what, number in manifest.converted.items():
        print(f"  {what}: {number:,} images")
    if manifest.skipped:
        print(f"  skipped: {manifest.skipped:,} unusable images, listed in {os.path.join(folder, 'skipped.txt')}")
    shape = load_labels(folder, manifest).shape
    shown = ", ".join(map(str, manifest.label_names[:12])) + (", ..." if len(manifest.label_names) > 12 else "")
    print(f"  labels: {list(shape)} {manifest.label_kind} ({shown})" if shape[1] else "  labels: none")
