"""The contents of a dataset's folder: shards, labels, index and manifest. Used by the preparation, which writes it, and by the reader.

    <name>-r<RR>.tfrecords<i>of<n>   records; RR is log2 of the width, i counts from 1
    <name>-rxx.labels                .npy, float32 [images, classes], in record order
    dataset.json                     the manifest
    index.npy                        int64 [images, 2], offset and data length of every record, in record order

A dataset without a manifest (an older one) is scanned once; the result is kept in the last two files if the folder is writable.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import re
from dataclasses import dataclass, field

import numpy as np

from dnnlib import UserError, atomic_output, records

MANIFEST, INDEX = "dataset.json", "index.npy"
FORMAT = 1
_SHARD = re.compile(r"(?P<name>.+)-r(?P<log2>\d\d)\.tfrecords(?:(?P<number>\d+)of(?P<total>\d+))?$")


@dataclass(frozen=True)
class Shard:
    """One record file: number of records, size in bytes, crc32c over the checksums of its records."""

    file: str
    count: int
    bytes: int
    crc: int


CLASS_KINDS = ("one-hot", "multi-hot")     # of labels whose columns are classes


@dataclass(frozen=True)
class Manifest:
    """A dataset's description. resolution is the width of the stored squares, box the image inside: [left, top, right, bottom]."""

    name: str
    count: int
    resolution: int
    channels: int
    ratio: float
    box: list
    shards: list
    label_names: list = field(default_factory=list)
    label_kind: str = "none"
    encoding: str = "raw"
    masks: bool = False
    source: str = "unknown"
    resize_filter: str = "unknown"
    converted: dict = field(default_factory=dict)
    skipped: int = 0
    plan: str = ""
    scanned: bool = False
    scanned_mtimes: list = field(default_factory=list)  # of the shards, in ns; empty for prepared datasets and scans of earlier versions
    tool_version: str = ""
    format: int = FORMAT


def shard_name(name, resolution, number, total):
    """File name of shard `number` (from 1) of `total`."""
    return f"{name}-r{resolution.bit_length() - 1:02d}.tfrecords{number}of{total}"


def picture_box(resolution, ratio):
    """[left, top, right, bottom] of an image of ratio height / width <= 1 in its padded square; an odd row goes to the bottom."""
    height = max(1, min(resolution, int(round(resolution * ratio))))
    top = (resolution - height) // 2
    return [0, top, resolution, top + height]


def save(folder, manifest, positions):
    """Write the manifest and the index (positions: (offset, length) of every record, in record order)."""
    with atomic_output(os.path.join(folder, INDEX)) as file:
        np.save(file, np.asarray(positions, np.int64).reshape(-1, 2))
    with atomic_output(os.path.join(folder, MANIFEST), "w") as file:
        json.dump(dataclasses.asdict(manifest), file, indent=1)
        file.write("\n")


def open_folder(folder, resolution=None):
    """The manifest and the index of a dataset, from its files or, for older datasets, from a scan.

    Args:
        folder: of the dataset.
        resolution: which one to take of an older dataset that has several; the largest if it lacks this one or if None.

    Returns:
        (Manifest, index int64 [count, 2]).

    Raises:
        UserError: there is no dataset, shards are missing or changed, or the manifest is damaged.
    """
    if not os.path.isdir(folder):
        raise UserError(f"dataset folder {folder}: not found")
    manifest, sets = load(folder), _shard_sets(folder)
    there = {width for width, _, _ in sets}
    largest = max(there, default=None)
    chosen = resolution if resolution in there else largest
    if manifest is not None and (not manifest.scanned or manifest.resolution == chosen):
        changed = _changed_shard(folder, manifest)
        if changed is None:
            return manifest, _load_index(folder, manifest)
        if not manifest.scanned:
            raise UserError(f"dataset {folder}: {changed}; prepare it again or bring the file back")
    manifest, index = _scan_folder(folder, sets, chosen)
    if chosen == largest:     # a smaller one, or one in a read-only folder, is scanned on every start
        with contextlib.suppress(OSError):
            save(folder, manifest, index)
    return manifest, index


def load(folder):
    """The Manifest in a dataset's folder, None if there is none; raises UserError if it is damaged."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        known = [entry.name for entry in dataclasses.fields(Manifest)]
        content["shards"] = [Shard(**shard) for shard in content["shards"]]
        if content["format"] > FORMAT:
            raise UserError(f"{path}: format {content['format']} is newer than this program's ({FORMAT})")
        manifest = Manifest(**{name: content[name] for name in known if name in content})
        if sum(shard.count for shard in manifest.shards) != manifest.count:
            raise ValueError("the shards' counts do not add up")
        return manifest
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a dataset manifest ({error}); delete it to have the dataset scanned") from error


def _changed_shard(folder, manifest):
    for shard in manifest.shards:
        path = os.path.join(folder, shard.file)
        if not os.path.isfile(path):
            return f"shard {shard.file} of the manifest is missing"
        if os.path.getsize(path) != shard.bytes:
            return f"shard {shard.file} has {os.path.getsize(path)} bytes, the manifest says {shard.bytes}"
    if manifest.scanned_mtimes not in ([], _mtimes(folder, [shard.file for shard in manifest.shards])):
        return "shards were changed after they were scanned"  # sizes do not tell: raw images of another dataset have the same
    return None


def _mtimes(folder, files):
    """Modification times of files, in ns."""
    return [os.stat(os.path.join(folder, file)).st_mtime_ns for file in files]


def _load_index(folder, manifest):
    with contextlib.suppress(Exception):     # on a damaged header NumPy raises MemoryError, tokenize.TokenError and others
        index = np.load(os.path.join(folder, INDEX), allow_pickle=False)
        if index.shape == (manifest.count, 2) and index.dtype == np.int64:
            return index
    return _scan_shards(folder, [shard.file for shard in manifest.shards])[1]


def _scan_folder(folder, sets, resolution):
    name, files = _find_shards(folder, sets, resolution)
    mtimes = _mtimes(folder, files)
    shards, index = _scan_shards(folder, files)
    count = sum(shard.count for shard in shards)
    if not count:
        raise UserError(f"dataset {folder}: its {len(files)} record files are empty")
    first = next(shard for shard in shards if shard.count)
    with open(os.path.join(folder, first.file), "rb") as file:
        shape, encoding = _describe(records.read(file, *index[0]), file.name)
    if shape[1:] != (resolution, resolution):
        raise UserError(f"dataset {folder}: the first record is {shape} (C, H, W), the file name says {resolution} x {resolution}")
    manifest = Manifest(name=name, count=count, resolution=resolution, channels=shape[0], ratio=1.0, box=picture_box(resolution, 1.0),
                        shards=shards, encoding=encoding, scanned=True, scanned_mtimes=mtimes)
    return manifest, index


def _describe(data, path):
    try:
        features = records.decode_example(data)
        channels, height, width = features["shape"]
        return (channels, height, width), features.get("encoding", b"raw").decode()
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: the first record is no picture of this format (a tf.train.Example with shape and data)") from error


def _shard_sets(folder):
    """The record files of a folder: dict (resolution, name, number of shards) -> dict shard number -> file name."""
    found = {}
    for entry in sorted(os.listdir(folder)):
        match = _SHARD.match(entry)
        if match:
            found.setdefault((1 << int(match["log2"]), match["name"], int(match["total"] or 1)), {})[int(match["number"] or 1)] = entry
    return found


def _find_shards(folder, found, resolution):
    """Name and file names (in order) of the shards of a resolution, among those that `_shard_sets` found."""
    if not found:
        others = len(os.listdir(folder))
        raise UserError(f"dataset folder {folder}: no <name>-r<RR>.tfrecords<i>of<n> among its {others} files (prepare_data.py makes them)")
    sets = sorted(key for key in found if key[0] == resolution)
    if len(sets) > 1:
        listed = ", ".join(f"{name}-r{size.bit_length() - 1:02d} in {total}" for size, name, total in sets)
        raise UserError(f"dataset {folder}: one set of record files is accepted, found {listed}; move the others away")
    _, name, total = sets[0]
    missing = sorted(set(range(1, total + 1)) - set(found[sets[0]]))
    if missing:
        first = shard_name(name, resolution, missing[0], total)
        raise UserError(f"dataset {folder}: {len(missing)} of {total} shards are missing, first {first}")
    return name, [found[sets[0]][number] for number in range(1, total + 1)]


def _scan_shards(folder, files):
    shards, positions = [], []
    for file in files:
        path = os.path.join(folder, file)
        found, digest = records.scan(path)
        shards.append(Shard(file, len(found), os.path.getsize(path), digest))
        positions.append(np.array(found, np.int64).reshape(-1, 2))
    return shards, np.concatenate(positions)


def load_labels(folder, manifest):
    """The labels of a dataset, float32 [images, classes]; [images, 0] without a label file.

    Raises:
        UserError: there is more than one label file, none although the manifest has labels, or one that is not such an array.
    """
    count, names = manifest.count, manifest.label_names
    named = [sorted(glob.glob(os.path.join(glob.escape(folder), pattern))) for pattern in ("*-rxx.labels", "*.labels")]
    paths = named[0] or named[1]     # older readers take any .labels
    if not paths:
        if manifest.label_kind != "none":
            missing = f"{manifest.name}-rxx.labels of the manifest is missing"
            raise UserError(f"dataset {folder}: {missing}; prepare it again or bring the file back")
        return np.zeros([count, 0], np.float32)
    if len(paths) > 1:
        raise UserError(f"dataset {folder}: one label file is accepted, found {', '.join(map(os.path.basename, paths))}")
    try:
        labels = np.load(paths[0], allow_pickle=False)
    except Exception as error:     # see _load_index
        raise UserError(f"{paths[0]}: not a .npy array of numbers ({error})") from error
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.ndim != 2 or len(labels) != count or labels.dtype.kind not in "fiub":
        given = f"{labels.dtype} {list(labels.shape)}"
        raise UserError(f"{paths[0]}: labels {given} for {count} images; accepted: numbers [images, classes]")
    if names and labels.shape[1] != len(names):
        raise UserError(f"{paths[0]}: labels {list(labels.shape)}, the manifest names {len(names)} classes; prepare the dataset again")
    return labels.astype(np.float32)
