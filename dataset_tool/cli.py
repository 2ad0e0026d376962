"""The command line of the preparation: options, their checks, and what is printed."""

from __future__ import annotations

import functools
import os
import sys

import numpy as np

from dataset_tool import check, labels, pictures, sources, writer
from dataset_tool.catalog import CATALOG
from dataset_tool.formats import FORMATS
from dataset_tool.source_databases import RECORDS
from dnnlib import UsageError, UserError, option_table
from dnnlib.files import size_text
from dnnlib.option_table import Option
from dnnlib.util import listed, usable_cores
from training import images
from training.manifest import CLASS_KINDS, load_labels, open_folder

SCENES_COUNT, SCENES_RESOLUTION = 10000, 64
DESCRIPTION = "Prepare datasets: download, convert and check images."
OPTION_GROUPS = (
    ("What to prepare", (
        *(Option(name, bool, False, f"prepare {name}: {entry.help}") for name, entry in CATALOG.items()),
        Option("scenes", bool, False, f"draw procedural scenes (default: {SCENES_COUNT} of {SCENES_RESOLUTION} pixels)"),
        Option("task", str, None, "prepare your own images as a dataset of this name (with --scenes: name of the dataset)"),
        Option("check", str, None, "only report on the images in this folder: sizes, modes, unusable files"),
        Option("data_dir", str, "datasets", "folder that holds the datasets"),
    )),
    ("Your own images", (
        Option("images_dir", str, None, "where they are: a folder, or a file or database, depending on --format"),
        Option("format", str, "images", f"their format; images: all of {', '.join(sources.EXTENSIONS['images'])}",
               choices=tuple(sorted(FORMATS))),
        Option("key", str, None, "hdf5: name of the image array; tfds: name of the image feature (default: the only suitable one)"),
    )),
    ("Format of the dataset", (
        Option("ratio", float, None, "height / width to crop to, such as 0.7 or 188/256 (default: as in the catalog, else 1)", low=0.01,
               high=1),
        Option("resolution", int, None, "width of the stored squares, a power of two (default: 256, or as in the source)", low=4, high=4096,
               power_of_two=True),
        Option("channels", int, None, "1 gray, 3 RGB (default), 4 RGB with alpha", choices=tuple(images.MODES)),
        Option("max_images", int, None, "use only the first N images; with --scenes: draw N (default: all)", low=1),
        Option("shards_num", int, None, "number of record files (default: as in the catalog, else one per 20,000 images)", low=1),
        Option("labels", str, None, f"{labels.ACCEPTED} (default: those of the source, if any)"),
        Option("encoding", str, None, "of the images: png (default), raw for older readers, jpeg is lossy", choices=pictures.ENCODINGS),
    )),
    ("Scenes and catalog", (
        Option("masks", bool, False, "with --scenes: also store which object each pixel shows"),
        Option("seed", int, 0, "with --scenes: seed of the random scenes", low=0),
        Option("originals", bool, False, "with --clevr: use the 18 GB of original images instead of the 6 GB of records"),
        Option("mirror", str, None, "URL of another server that has the catalog's files under the same names"),
    )),
    ("Work", (
        Option("num_workers", int, None, "number of conversion processes (default: one per core that this command may use)", low=1),
        Option("allow_skips", bool, False, "continue even if more than 1 % of the images are unusable"),
        Option("debug", bool, False, "show the traceback of an error"),
    )),
)  # fmt: skip
Options = option_table.options_class([option for _, rows in OPTION_GROUPS for option in rows], "Every option of prepare_data.py, resolved.")


def main(argv):
    """Prepare what the arguments ask for. Returns the exit code."""
    options = Options(**option_table.parse_given(argv, "prepare_data.py", DESCRIPTION, OPTION_GROUPS))
    if options.check:
        if options.format not in sources.EXTENSIONS:
            raise UsageError(f"--format {options.format}: accepted with --check: {', '.join(sources.EXTENSIONS)}")
        return check.report(options.check, _image_format(options, sources.Source.default_resolution, 1.0), options.format)
    prepare(options)
    return 0


def options_for(dataset, **given):
    """The options that prepare a dataset by name: one of the catalog, `scenes`, or else a --task of that name.

    Args:
        dataset: its name.
        given: further options (data_dir, images_dir, ...); None stands for the default.

    Returns:
        The Options for `prepare`.
    """
    named = {dataset: True} if dataset in CATALOG or dataset == "scenes" else {"task": dataset}
    return Options(**named, **{name: value for name, value in given.items() if value is not None})


def prepare(options):
    """Prepare the datasets that the options ask for.

    Args:
        options: the Options.

    Raises:
        UsageError: nothing, or something impossible, is asked for.
        UserError: the input, a download or the disk is at fault.
    """
    _check_usage(options)
    jobs = {f"--{name}": functools.partial(_prepare_from_catalog, name, options) for name in CATALOG if getattr(options, name)}
    if options.scenes:
        jobs["--scenes"] = functools.partial(_draw_scenes, options)
    elif options.task:
        jobs["--task"] = functools.partial(_prepare_pictures, options)
    failed = []
    for flag, job in jobs.items():
        try:
            job()
        except UserError as error:  # an exceeded download quota must not prevent the other datasets
            if len(jobs) == 1:
                raise
            print(f"error: {flag}: {error}", file=sys.stderr, flush=True)
            failed.append(flag)
    if failed:
        raise UserError(f"{' '.join(failed)}: not prepared, for the reasons above; run the same command to try again")


def _check_usage(options):
    wanted = [f"--{name}" for name in (*CATALOG, "scenes") if getattr(options, name)]
    if options.task and not options.scenes:
        wanted.append(f"--task {options.task}")
        if not options.images_dir and options.format != "tfds":
            raise UsageError(f"--task {options.task}: --images-dir is required")
    if not wanted:
        raise UsageError(f"nothing to prepare; accepted: {', '.join('--' + name for name in CATALOG)}, --scenes, --task NAME, --check DIR")
    for flag, given, needs, there in (
        ("--images-dir", options.images_dir, "--task", options.task),
        ("--masks", options.masks, "--scenes", options.scenes),
        ("--seed", options.seed, "--scenes", options.scenes),
        ("--originals", options.originals, "--clevr", options.clevr),
        ("--mirror", options.mirror, "a dataset of the catalog", any(getattr(options, name) for name in CATALOG)),
        ("--format", options.format != "images", "your own images (--task)", options.task and not options.scenes),
        ("--key", options.key, "--format hdf5 or tfds", options.format in ("hdf5", "tfds")),
    ):
        if given and not there:
            raise UsageError(f"{flag}: only with {needs}")
    if options.images_dir and options.scenes:
        raise UsageError("--images-dir: not with --scenes, which draws its own images")
    if options.encoding == "jpeg" and options.channels == 4:
        raise UsageError("--encoding jpeg: accepted with --channels 1 or 3")
    if options.task and (os.path.basename(options.task) != options.task or options.task.startswith(".")):
        raise UsageError(f"--task {options.task}: accepted: a name without / that does not begin with a dot")


def _prepare_from_catalog(name, options):
    entry, folder = CATALOG[name], os.path.join(options.data_dir, name)
    if os.path.isdir(folder) and os.listdir(folder) and not os.path.isfile(entry.path(options)):
        _use_existing(entry, folder, options)
    else:
        _write(name, entry.fetch(options), options, entry.ratio, entry.shards)
        pattern, size = entry.kept(options)
        print(f"  kept: {pattern} ({size_text(size)}), only needed to prepare {name} again with other options; may be deleted")


def _use_existing(entry, folder, options):
    """Accept a dataset without its download, with which the writer would compare it: what was given is compared with the manifest."""
    manifest, _ = open_folder(folder, options.resolution)
    labelled = load_labels(folder, manifest).shape[1] > 0
    contradicted = [flag for flag, given, there in (
        ("--resolution", options.resolution, manifest.resolution),
        ("--channels", options.channels, manifest.channels),
        ("--ratio", options.ratio, manifest.ratio),
        ("--encoding", options.encoding, manifest.encoding),
        ("--shards-num", options.shards_num, len(manifest.shards)),
        ("--max-images", options.max_images and min(options.max_images, entry.images), manifest.count + manifest.skipped),
        ("--labels", options.labels and options.labels != "none", labelled),
        ("--originals", options.originals or None, manifest.source != RECORDS),
    ) if given not in (None, there)]  # fmt: skip
    if contradicted:
        raise writer.another_dataset(folder, contradicted)
    _print_summary(folder, manifest, was_there=True)
    print(f"  using the existing dataset; {entry.path(options)} is not there and would only be downloaded to prepare it anew")


def _draw_scenes(options):
    count, resolution = options.max_images or SCENES_COUNT, options.resolution or SCENES_RESOLUTION
    _write(options.task or "scenes", sources.scenes_source(count, options.seed, resolution, options.masks), options)


def _prepare_pictures(options):
    _write(options.task, FORMATS[options.format](options), options)


def _write(name, source, options, ratio=1.0, shards=None):
    count = min(source.count, options.max_images or source.count)
    if options.max_images and options.max_images > source.count:
        print(f"--max-images {options.max_images}: only {source.count} images are available")
    form = _image_format(options, source.default_resolution, ratio)
    attached = labels.attach(source, options.labels)
    if options.shards_num and options.shards_num > count:
        raise UsageError(f"--shards-num {options.shards_num}: accepted: 1 to the number of images, {count}")
    shards = min(options.shards_num or shards or -(-count // 20000), count)
    described = ""
    if attached:
        described = sources.digest([attached.names, attached.kind, b"" if attached.values is None else attached.values[:count].tobytes()])
    plan = writer.Plan(name, form, shards, count, source.description, source.identity, described)
    for note in source.notes:
        print(note)
    manifest, was_there = writer.write_dataset(options.data_dir, plan, source, options.num_workers or usable_cores(), options.allow_skips)
    _print_summary(os.path.join(options.data_dir, manifest.name), manifest, was_there)
    if attached is None and source.subfolders > 1:
        print(f"  the names of the {source.subfolders} sub-folders are not used; with --labels folders they become labels")


def _image_format(options, resolution, ratio):
    """The ImageFormat that is asked for; resolution, ratio: where the options do not say."""
    return pictures.ImageFormat(options.resolution or resolution, options.channels or 3, options.ratio or ratio, options.encoding or "png")


def _print_summary(folder, manifest, was_there):
    size = sum(shard.bytes for shard in manifest.shards)
    width, state = manifest.resolution, "already there, " if was_there else ""
    ratio = "not stored" if manifest.scanned else f"{manifest.ratio:.4g}"
    print(f"{folder}: {state}{manifest.count:,} images of {width} x {width} pixels, {manifest.channels} channels, "
          f"ratio {ratio}, {manifest.encoding}, {len(manifest.shards)} shards, {size / 1e6:,.1f} MB")
    for what, number in manifest.converted.items():
        print(f"  {what}: {number:,} images")
    if manifest.skipped:
        print(f"  skipped: {manifest.skipped:,} unusable images, listed in {os.path.join(folder, 'skipped.txt')}")
    stored = load_labels(folder, manifest)
    shape = stored.shape
    print(f"  labels: {list(shape)} {manifest.label_kind} ({listed(manifest.label_names)})" if shape[1] else "  labels: none")
    empty = shape[1] - np.count_nonzero(stored.any(axis=0)) if manifest.label_kind in CLASS_KINDS else 0
    if empty:
        print(f"  {empty:,} of {shape[1]:,} classes have no images: what is generated for them is arbitrary")
