"""Sources with their own storage: LMDB databases (LSUN), TensorFlow Datasets, and the record files of other datasets."""

from __future__ import annotations

import functools
import io
import os
from dataclasses import dataclass

from dataset_tool import pictures
from dataset_tool.sources import Loaded, Source, SourceLabels, digest, file_facts, width_of
from dnnlib import UserError
from training.dataset import Dataset
from training.picture_files import PictureError, open_picture

RECORDS = "tfrecords"     # what the manifest calls the source of a dataset that is made from another dataset's records


@dataclass(frozen=True)
class LmdbLoader:
    """Decodes the image file stored under a key."""

    path: str

    def __call__(self, entry):
        import lmdb

        try:
            with _open_lmdb(self.path).begin(buffers=False) as transaction:
                value = transaction.get(entry)
        except lmdb.Error as error:
            raise PictureError(str(error)) from error
        if value is None:
            raise PictureError("not in the database")
        return open_picture(io.BytesIO(value))


@functools.lru_cache(maxsize=1)
def _open_lmdb(path):
    import lmdb

    return lmdb.open(path, subdir=os.path.isdir(path), readonly=True, lock=False, readahead=False, meminit=False, max_readers=512)


def lmdb_source(root):
    """An LMDB database whose values are image files (LSUN: webp), in the order of its keys."""
    import lmdb

    data = os.path.join(root, "data.mdb") if os.path.isdir(root) else root
    if not os.path.isfile(data):
        raise UserError(f"--images-dir {root}: accepted for lmdb: a folder with data.mdb, or the file")
    try:
        facts, last = _open_lmdb(root).stat(), _open_lmdb(root).info()["last_pgno"]
    except lmdb.Error as error:
        raise UserError(f"--images-dir {root}: not a readable lmdb database ({error})") from error
    count, size = facts["entries"], (last + 1) * facts["psize"]
    if not count:
        raise UserError(f"--images-dir {root}: the database is empty")
    if os.path.getsize(data) < size:     # reading beyond the end would kill the process
        raise UserError(f"--images-dir {root}: truncated, {data} has {os.path.getsize(data):,} of {size:,} bytes")

    def keys():
        try:
            with _open_lmdb(root).begin() as transaction:
                yield from transaction.cursor().iternext(keys=True, values=False)
        except lmdb.Error as error:
            raise UserError(f"--images-dir {root}: the database is damaged ({error})") from error

    return Source("lmdb database", LmdbLoader(root), keys, count, digest(["lmdb", file_facts(data)]), root=root)


class RecordsLoader:
    """Reads images of a tfrecords dataset and crops their padding."""

    def __init__(self, folder, ratio):
        self.folder, self.ratio = folder, ratio

    def __call__(self, entry):
        dataset = _open_dataset(self.folder)
        try:
            squares = dataset.read([entry])
        except UserError as error:
            raise PictureError(str(error)) from error
        left, top, right, bottom = pictures.picture_box(dataset.resolution, self.ratio)
        return squares[0, :, top:bottom, left:right].transpose(1, 2, 0)


@functools.lru_cache(maxsize=1)
def _open_dataset(folder):
    return Dataset(folder, num_threads=1)


def records_source(folder, ratio):
    """Another dataset of record files, whose images of height / width `ratio` are padded to squares."""
    dataset = _open_dataset(folder)
    found = None
    if dataset.labels.shape[1]:
        names = dataset.label_names or [str(column) for column in range(dataset.labels.shape[1])]
        found = SourceLabels(dataset.labels, names, "as stored")
    return Source(RECORDS, RecordsLoader(folder, ratio), range(dataset.count), dataset.count, digest(["records", dataset.fingerprint]),
                  labels=found, default_resolution=dataset.resolution, root=folder)


@dataclass(frozen=True)
class ExampleLoader:
    """Takes entries (image, class number or None) as they are."""

    classes: int

    def __call__(self, entry):
        pixels, number = entry
        return Loaded(pixels, label=tuple(float(number == column) for column in range(self.classes)))


def tfds_source(name, data_dir=None, key=None):
    """The train split of a dataset of TensorFlow Datasets, read from `data_dir` (downloaded there if necessary).

    Its labels come from the feature `label`, if there is one.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"--format tfds: requires the package tensorflow-datasets (pip install tensorflow-datasets): {error}") from error
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
        features, split = builder.info.features, builder.info.splits["train"]
    except Exception as error:     # its errors have no common base class
        raise UserError(f"--task {name}: TensorFlow Datasets cannot load it ({' '.join(str(error).split())[:300]})") from error
    images = [feature for feature, kind in features.items() if isinstance(kind, tfds.features.Image)]
    if key is None and len(images) != 1 or key is not None and key not in images:
        raise UserError(f"--key {key}: {name} has the image features {', '.join(images) or 'none'}; accepted: one of them")
    key = key or images[0]

    classes = features.get("label")
    names = list(classes.names) if isinstance(classes, tfds.features.ClassLabel) else []

    def entries():
        for example in tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False)):
            yield example[key], example["label"] if names else None

    width = features[key].shape[1]
    return ExampleSource(f"tfds {builder.info.full_name}", ExampleLoader(len(names)), entries, split.num_examples,
                         digest(["tfds", builder.info.full_name, key]), labels=SourceLabels(None, names, "one-hot") if names else None,
                         default_resolution=width_of(width) if width else 256)


class ExampleSource(Source):
    """A Source whose entries are the images themselves."""

    def name(self, entry):
        """The image's shape: it has no name."""
        return f"an image of shape {list(entry[0].shape)}"
