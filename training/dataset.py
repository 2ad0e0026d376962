"""Reading of datasets: random access by (shard, offset), decoding in a thread pool, an order that is a function of (seed, position).

Records are decoded with Pillow in threads (it releases the interpreter's lock while it works), not with tf.data: tf.data reads record
files only from the beginning, shuffles differently from one TensorFlow release to the next, and would need its state saved to resume.
"""

from __future__ import annotations

import bisect
import collections
import concurrent.futures
import hashlib
import io
import json
import os
import threading

import numpy as np
from PIL import Image

from dnnlib import UserError, records
from training import manifest as manifests
from training.images import from_pil

BATCHES_AHEAD = 3


class Dataset:
    """A prepared dataset, or an older one of raw tfrecords.

    Attributes:
        name, count, resolution, channels: of the dataset and its stored squares.
        shape: (C, H, W) with H = W = resolution.
        ratio: height / width of the images inside the squares' black padding.
        stores_ratio: whether the ratio is stored in the dataset's manifest (older datasets have none).
        labels: float32 [count, c_dim]; c_dim is 0 without labels.
        label_names: list of c_dim strings, or empty.
        label_kind: one-hot, multi-hot, counts, continuous, ...; none for older datasets, which do not say it.
        has_masks: whether `read_masks` can be called.
        fingerprint: 16 hexadecimal digits, a hash of the records, the labels and their number.
    """

    def __init__(self, path, ratio=None, max_images=None, num_threads=4, resolution=None):
        """Open the dataset in folder `path`.

        Args:
            path: folder of the dataset.
            ratio: height / width in (0, 1] to use instead of the stored one.
            max_images: use only this many records, from the first on.
            num_threads: number of threads that decode.
            resolution: which one to take of an older dataset that has several; the largest if it lacks this one or if None.

        Raises:
            UserError: there is no such dataset; files are missing, damaged or changed; an argument is out of range.
        """
        if ratio is not None and not 0 < ratio <= 1:
            raise UserError(f"dataset {path}: ratio {ratio}; accepted: above 0, up to 1")
        if max_images is not None and max_images < 1:
            raise UserError(f"dataset {path}: max_images {max_images}; accepted: 1 or more")
        manifest, self._index = manifests.open_folder(path, resolution)
        self.path, self.name = path, manifest.name
        self.label_names, self.label_kind = list(manifest.label_names), manifest.label_kind
        self.resolution, self.channels, self.has_masks = manifest.resolution, manifest.channels, manifest.masks
        self.shape = (self.channels, self.resolution, self.resolution)
        self.stores_ratio = not manifest.scanned
        self.ratio = float(ratio or manifest.ratio)
        self.count = min(manifest.count, max_images or manifest.count)
        labels = manifests.load_labels(path, manifest)
        self.labels = labels[:self.count]
        self.fingerprint = _fingerprint(manifest, labels, self.count)
        self._files = [os.path.join(path, shard.file) for shard in manifest.shards]
        self._ends = list(np.cumsum([shard.count for shard in manifest.shards]))
        self._open_files, self._lock = {}, threading.Lock()
        self._num_threads = num_threads
        self._pool = None
        self._shuffled = None, None  # the last (seed, epoch), and its order of records

    def read(self, indices):
        """Read records by number.

        Args:
            indices: sequence of integers in [0, count).

        Returns:
            uint8 [n, C, H, W].

        Raises:
            UserError: a corrupt record, naming its shard and offset.
        """
        pictures, tasks = self._start_reading(indices)
        for task in tasks:
            task.result()
        return pictures

    def read_masks(self, indices):
        """The object number of every pixel (0 is background), for datasets prepared with masks. Returns uint8 [n, H, W]."""
        if not self.has_masks:
            raise UserError(f"dataset {self.path}: prepared without masks")
        masks = [np.asarray(Image.open(io.BytesIO(self._features(int(index))["mask"]))) for index in indices]
        return np.stack(masks)

    def batches(self, batch_size, seed, position=0, shard=0, shards=1):
        """An endless stream of shuffled batches, decoded ahead.

        Every epoch is a permutation of the records, drawn from (seed, epoch). `position` counts the images consumed by all shards
        together; the shards' batches, concatenated, are those of a single reader with batches of batch_size * shards images.

        Args:
            batch_size: images per batch of this shard.
            seed: integer >= 0.
            position: images already consumed, by all shards.
            shard, shards: index of this reader (from 0) and number of readers.

        Yields:
            (images uint8 [batch_size, C, H, W], labels float32 [batch_size, c_dim]).
        """
        started = collections.deque()
        position += shard * batch_size
        while True:
            while len(started) < BATCHES_AHEAD:
                indices = self.order(seed, position, batch_size)
                started.append((indices, *self._start_reading(indices)))
                position += batch_size * shards
            indices, pictures, tasks = started.popleft()
            for task in tasks:
                task.result()
            yield pictures, self.labels[indices]

    def order(self, seed, position, size):
        """Record numbers [size] at positions position, position + 1, ... of the endless shuffled order for `seed`."""
        parts = []
        while size:
            epoch, start = divmod(position, self.count)
            part = self._permutation(seed, epoch)[start:start + size]
            parts.append(part)
            position, size = position + len(part), size - len(part)
        return np.concatenate(parts)

    def _permutation(self, seed, epoch):
        with self._lock:
            if self._shuffled[0] != (seed, epoch):
                # RandomState's streams are frozen: the same order with every NumPy version.
                rng = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, epoch])
                self._shuffled = (seed, epoch), rng.permutation(self.count)
            return self._shuffled[1]

    def _start_reading(self, indices):
        """Start decoding records. Returns (uint8 [n, C, H, W], the futures that fill it)."""
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(self._num_threads, thread_name_prefix="dataset")
        pictures = np.empty([len(indices), *self.shape], np.uint8)
        parts = np.array_split(np.arange(len(indices)), min(len(indices), 2 * self._num_threads)) if len(indices) else []
        return pictures, [self._pool.submit(self._fill, pictures, indices, part) for part in parts]

    def _fill(self, pictures, indices, part):
        for row in part:
            pictures[row] = self._decode(int(indices[row]))

    def _features(self, index):
        if not 0 <= index < self.count:
            raise IndexError(f"record {index} of dataset {self.path}: accepted 0 to {self.count - 1}")
        offset, length = self._index[index]
        return records.decode_example(records.read(self._file(self._shard(index)), int(offset), int(length)))

    def _shard(self, index):
        return bisect.bisect_right(self._ends, index)

    def _file(self, shard):
        with self._lock:
            if shard not in self._open_files:
                try:
                    self._open_files[shard] = open(self._files[shard], "rb", buffering=0)  # noqa: SIM115  (kept open)
                except OSError as error:
                    raise UserError(f"{self._files[shard]}: cannot be read ({error.strerror})") from error
            return self._open_files[shard]

    def _decode(self, index):
        try:
            features = self._features(index)
            picture = _decode_picture(features["data"], features.get("encoding", b"raw"), tuple(features["shape"]))
            if picture.shape != self.shape:
                raise ValueError(f"shape {picture.shape}, the dataset has {self.shape}")
            return picture
        except (ValueError, KeyError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            file = self._files[self._shard(index)]
            reason = f"no feature {error}" if isinstance(error, KeyError) else error
            raise UserError(f"{file}: unusable record at offset {self._index[index][0]} ({reason})") from error


def _decode_picture(data, encoding, shape):
    """Decode a record's data to uint8 [C, H, W]."""
    if encoding == b"raw":
        return np.frombuffer(data, np.uint8).reshape(shape)
    if encoding not in (b"png", b"jpeg"):
        raise ValueError(f"encoding {encoding!r}; accepted: raw, png, jpeg")
    with Image.open(io.BytesIO(data), formats=[encoding.decode()]) as image:
        return from_pil(image)


def _fingerprint(manifest, labels, count):
    shards = [[shard.count, shard.bytes, shard.crc] for shard in manifest.shards]
    digest = hashlib.sha256(json.dumps([shards, list(labels.shape), count]).encode())
    digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()[:16]
