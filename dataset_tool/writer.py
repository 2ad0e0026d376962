"""Writes a dataset shard by shard to `<name>.partial/`, which is renamed to `<name>/` when it is complete.

The result is a function of the plan alone (input, options, versions), not of the number of workers or of interruptions: shard i holds
the entries i * count / shards to (i + 1) * count / shards without the unusable ones. A finished shard has a `.done` file beside it; a
second run with the same plan keeps the finished shards, one with a different plan starts over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import PIL
from tqdm import tqdm

from dataset_tool import pictures
from dataset_tool.workers import convert_all
from dnnlib import UserError, atomic_output, locks, records
from dnnlib.files import check_space
from training import manifest as manifests

TOOL_VERSION = "1"
SKIP_LIMIT = 0.01
_PLAN, _SKIPPED = "plan.json", "skipped.txt"
_BYTES_PER_VALUE = {"png": 0.75, "jpeg": 0.35}     # estimate of the space needed, on the safe side for photographs


@dataclass(frozen=True)
class Plan:
    """Everything that determines the bytes of a dataset."""

    name: str
    form: pictures.ImageFormat
    shards: int
    count: int
    source: str
    identity: str
    labels: str = ""
    versions: tuple = (TOOL_VERSION, PIL.__version__)

    @property
    def key(self):
        """Hash of the plan: only the versions that began a dataset continue it."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def request(self):
        """Hash of the request, without versions: a complete dataset stays valid when Pillow is updated."""
        return dataclasses.replace(self, versions=()).key


@dataclass
class ShardRecord:
    """A finished shard: the contents of its `.done` file."""

    shard: manifests.Shard
    lengths: list = field(default_factory=list)
    kept: list = field(default_factory=list)
    labels: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    notes: dict = field(default_factory=dict)


def free_space_needed(form, count):
    """Estimated bytes of a dataset of `count` images."""
    share = 1 if form.encoding == "raw" else form.ratio * _BYTES_PER_VALUE[form.encoding]     # raw padding is not compressed
    return int(count * (form.channels * form.resolution ** 2 * share + 1000))


def write_dataset(data_dir, plan, source, num_workers=1, allow_skips=False):
    """Prepare the dataset `data_dir`/`plan.name`.

    Args:
        data_dir: folder of the datasets.
        plan: the Plan.
        source: the Source, with at least plan.count entries; its labels, if any, are stored too.
        num_workers: number of conversion processes.
        allow_skips: accept more than 1 % of unusable images.

    Returns:
        (Manifest, whether the dataset existed already).

    Raises:
        UserError: a different dataset is there, too many images are unusable, no space, no permission.
    """
    final, partial = os.path.join(data_dir, plan.name), os.path.join(data_dir, f"{plan.name}.partial")
    try:
        os.makedirs(data_dir, exist_ok=True)
        with locks.held(os.path.join(data_dir, f".{plan.name}.lock"), _refuse):
            ready = _find_ready(final, plan)
            if ready is not None:
                return ready, True
            check_space(data_dir, free_space_needed(plan.form, plan.count) - _bytes_there(partial, plan), f"dataset {plan.name}")
            _start_or_continue(partial, plan)
            finished = _write_shards(partial, plan, source, num_workers, allow_skips)
            manifest = _finish(partial, plan, source, finished)
            os.rename(partial, final)
            _sync_folder(data_dir)
            return manifest, False
    except OSError as error:
        raise UserError(f"--data-dir {data_dir}: {error.strerror or error} ({error.filename or partial})") from error


def _refuse(path, owner, waited):
    raise UserError(f"{path}: {owner} is preparing this dataset")


def _find_ready(final, plan):
    if not os.path.exists(final):
        return None
    if not os.listdir(final):
        os.rmdir(final)
        return None
    with contextlib.suppress(UserError):
        manifest = manifests.load(final)
        if manifest is not None and manifest.plan == plan.request:
            return manifest
    raise another_dataset(final)


def another_dataset(final, flags=()):
    """The UserError for a dataset that is there, but is not the one that is asked for; flags: those that it contradicts, if known."""
    given = f" ({', '.join(flags)})" if flags else ""
    return UserError(f"{final}: already exists, made from other input or with other options{given}; "
                     "delete it or choose another --data-dir or --task")


def _is_continued(partial, plan):
    """Whether the folder belongs to an unfinished preparation with the same plan."""
    with contextlib.suppress(OSError, ValueError), open(os.path.join(partial, _PLAN), encoding="utf-8") as file:
        return json.load(file).get("key") == plan.key
    return False


def _bytes_there(partial, plan):
    """Bytes that are written already."""
    return sum(os.path.getsize(os.path.join(partial, file)) for file in os.listdir(partial)) if _is_continued(partial, plan) else 0


def _start_or_continue(partial, plan):
    if _is_continued(partial, plan):
        for unfinished in glob.glob(os.path.join(glob.escape(partial), ".*.partial")):
            os.remove(unfinished)
        return
    if os.path.isdir(partial):
        print(f"{partial}: left by a different preparation, starting over")
        shutil.rmtree(partial)
    with atomic_output(os.path.join(partial, _PLAN), "w") as file:
        json.dump({"key": plan.key, "plan": dataclasses.asdict(plan)}, file)


def _write_shards(partial, plan, source, num_workers, allow_skips):
    """Write the missing shards. Returns a list of ShardRecord."""
    bounds = [plan.count * shard // plan.shards for shard in range(plan.shards + 1)]
    files = [manifests.shard_name(plan.name, plan.form.resolution, number, plan.shards) for number in range(1, plan.shards + 1)]
    finished = [_load_done(partial, file) for file in files]
    missing = [number for number, done in enumerate(finished) if done is None]
    entries = itertools.chain.from_iterable(source.iterate(start, stop) for start, stop in ranges_of(bounds, missing))
    total = sum(bounds[number + 1] - bounds[number] for number in missing)
    if total < plan.count:
        print(f"{partial}: continuing, {plan.shards - len(missing)} of {plan.shards} shards are finished")
    workers = num_workers if total > 32 else 1     # starting processes takes longer than converting so few images
    converted = convert_all(entries, source.loader, plan.form, workers)
    with contextlib.closing(converted), tqdm(total=total, unit=" images", desc=plan.name, disable=None) as progress:
        for number in missing:
            part = itertools.islice(converted, bounds[number + 1] - bounds[number])
            finished[number] = _write_shard(partial, files[number], bounds[number], part, source, progress)
    _check_skips(partial, plan.count, finished, allow_skips)     # at the end, so that all of them can be fixed at once
    return finished


def ranges_of(bounds, shards):
    """The entries of some shards as ranges (first, end), adjacent ones merged: some sources start reading at the beginning for every range.

    Args:
        bounds: entry numbers at which the shards begin, and the end of the last.
        shards: numbers of shards, ascending.
    """
    ranges = []
    for shard in shards:
        start, stop = bounds[shard], bounds[shard + 1]
        if ranges and ranges[-1][1] == start:
            start = ranges.pop()[0]
        ranges.append((start, stop))
    return ranges


def _write_shard(partial, name, first, converted, source, progress):
    done = ShardRecord(None)
    notes = Counter()
    with atomic_output(os.path.join(partial, name)) as file:
        writer = records.RecordWriter(file)
        for index, result in enumerate(converted, start=first):
            progress.update()
            if result.reason:
                done.skipped.append((source.name(result.entry), result.reason))
                continue
            writer.write(result.record)
            done.kept.append(index)
            if result.label:
                done.labels.append(result.label)
            notes.update(result.notes)
    done.shard = manifests.Shard(name, len(done.kept), writer.size, writer.digest)
    done.lengths = [length for _, length in writer.positions]
    done.notes = dict(notes)
    with atomic_output(os.path.join(partial, f"{name}.done"), "w") as file:
        json.dump(dataclasses.asdict(done), file)
    return done


def _load_done(partial, name):
    try:
        with open(os.path.join(partial, f"{name}.done"), encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    return ShardRecord(**{**content, "shard": manifests.Shard(**content["shard"])})


def _check_skips(partial, count, finished, allow_skips):
    skipped = list(itertools.chain.from_iterable(done.skipped for done in finished))
    if len(skipped) > SKIP_LIMIT * count and not allow_skips:
        _write_skipped(partial, skipped)
        name, reason = skipped[0]
        raise UserError(f"{len(skipped)} of {count} images are unusable, first {name} ({reason}); all of them are listed in "
                        f"{os.path.join(partial, _SKIPPED)}; --allow-skips continues without them")


def _write_skipped(folder, skipped):
    with atomic_output(os.path.join(folder, _SKIPPED), "w") as file:
        file.writelines(f"{name}\t{reason}\n" for name, reason in skipped)


def _finish(partial, plan, source, finished):
    """Write labels, skipped.txt and the manifest; remove the traces of the preparation. Returns the Manifest."""
    kept = list(itertools.chain.from_iterable(done.kept for done in finished))
    if not kept:
        raise UserError(f"dataset {plan.name}: none of {plan.count} images can be used")
    skipped = list(itertools.chain.from_iterable(done.skipped for done in finished))
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(partial, _SKIPPED))
    if skipped:
        _write_skipped(partial, skipped)
    labels = source.labels
    if labels is not None:
        with atomic_output(os.path.join(partial, f"{plan.name}-rxx.labels")) as file:
            streamed = itertools.chain.from_iterable(done.labels for done in finished)
            np.save(file, np.array(list(streamed), np.float32) if labels.values is None else labels.values[kept])
    form = plan.form
    notes = sum((Counter(done.notes) for done in finished), Counter())
    manifest = manifests.Manifest(
        name=plan.name, count=len(kept), resolution=form.resolution, channels=form.channels, ratio=form.ratio,
        box=manifests.picture_box(form.resolution, form.ratio), shards=[done.shard for done in finished], encoding=form.encoding,
        label_names=labels.names if labels else [], label_kind=labels.kind if labels else "none", masks=source.masks, source=plan.source,
        resize_filter=pictures.RESIZE_FILTER, converted=dict(sorted(notes.items())), skipped=len(skipped), plan=plan.request,
        tool_version=TOOL_VERSION)
    manifests.save(partial, manifest, _positions(finished))
    for done in finished:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(partial, f"{done.shard.file}.done"))
    os.remove(os.path.join(partial, _PLAN))
    _sync_folder(partial)
    return manifest


def _positions(finished):
    """[images, 2]: offset and data length of every record."""
    parts = []
    for done in finished:
        lengths = np.array(done.lengths, np.int64)
        ends = np.cumsum(lengths + records.HEADER_SIZE + records.FOOTER_SIZE)
        parts.append(np.stack([ends - lengths - records.HEADER_SIZE - records.FOOTER_SIZE, lengths], axis=1))
    return np.concatenate(parts)


def _sync_folder(folder):
    """Bring a folder's names to the disk, as far as its file system offers that: some network and FUSE file systems do not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
