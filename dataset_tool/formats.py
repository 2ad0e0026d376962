"""The formats of --format: functions from the options to a Source."""

from __future__ import annotations

from dataset_tool import source_arrays, source_databases, sources


def _folder(format):
    return lambda options: sources.folder_source(options.images_dir, format)


FORMATS = {
    "images": _folder("images"),
    "png": _folder("png"),
    "jpg": _folder("jpg"),
    "npy": lambda options: source_arrays.npy_source(options.images_dir),
    "hdf5": lambda options: source_arrays.hdf5_source(options.images_dir, options.key, options.labels in (None, "source")),
    "lmdb": lambda options: source_databases.lmdb_source(options.images_dir),
    "tfds": lambda options: source_databases.tfds_source(options.task, options.images_dir, options.key),
}
