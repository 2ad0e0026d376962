"""--check: report what is in a folder, without writing anything."""

from __future__ import annotations

import os
from collections import Counter

from tqdm import tqdm

from dataset_tool import pictures
from dataset_tool.sources import EXTENSIONS, base_folder, find_files, relative_name
from dnnlib import UserError
from training.dataset import Dataset
from training.picture_files import PictureError, open_picture

SHOWN = 20


def report(folder, form, format):
    """Print the sizes and modes of the images below a folder, what preparation would do to them, and which are unusable and why.

    Args:
        folder: of image files, or of a prepared dataset; every record of a dataset is read and its checksums are verified.
        form: the ImageFormat they would be converted to.
        format: which files to look at, one of sources.EXTENSIONS.

    Returns:
        0, or 1 when something is unusable.
    """
    if os.path.isdir(folder) and any(".tfrecords" in name for name in os.listdir(folder)):
        return _check_dataset(folder)
    paths, notes = find_files(folder, EXTENSIONS[format], "--check")
    sizes, modes, done, rejected = Counter(), Counter(), Counter(), []
    for path in tqdm(paths, unit=" images", disable=None):
        try:
            image = open_picture(path)
            sizes[image.size] += 1
            modes[image.mode] += 1
            done.update(pictures.to_pixels(image, form)[1])
        except PictureError as error:
            rejected.append((relative_name(path, base_folder(folder)), str(error)))
    print(f"{folder}: {len(paths):,} image files, {len(rejected):,} would be rejected")
    for note in notes:
        print(f"  {note}")
    _print_counts("size", [(f"{width} x {height}", count) for (width, height), count in sizes.most_common()])
    _print_counts("mode", modes.most_common())
    _print_counts("preparation", done.most_common())
    for name, reason in rejected:
        print(f"  rejected: {name}: {reason}")
    return 1 if rejected else 0


def _print_counts(what, counts):
    for value, count in counts[:SHOWN]:
        print(f"  {what} {value}: {count:,}")
    if len(counts) > SHOWN:
        print(f"  {what}: {len(counts) - SHOWN} others, {sum(count for _, count in counts[SHOWN:]):,} files")


def _check_dataset(folder):
    dataset = Dataset(folder)
    damaged = []
    for index in tqdm(range(dataset.count), unit=" images", disable=None):
        try:
            dataset.read([index])
        except UserError as error:
            damaged.append(str(error))
    print(f"{folder}: dataset {dataset.name}, {dataset.count:,} records of {list(dataset.shape)} (C, H, W), ratio {dataset.ratio:.4g}, "
          f"labels {list(dataset.labels.shape)}, fingerprint {dataset.fingerprint}, {len(damaged):,} damaged")
    for reason in damaged:
        print(f"  damaged: {reason}")
    return 1 if damaged else 0
