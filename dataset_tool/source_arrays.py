"""Sources of arrays: npy and hdf5 files, and the CIFAR-10 batches."""

from __future__ import annotations

import functools
import os
import pickle
import posixpath
from dataclasses import dataclass

import numpy as np

from dataset_tool import labels
from dataset_tool.sources import Source, base_folder, digest, file_facts, find_files, width_of
from dnnlib import UserError
from training.picture_files import PictureError

_LABEL_KEYS = ("labels", "label", "y")
_DAMAGED_HDF5 = (OSError, KeyError, RuntimeError)     # what h5py raises
_ALTERNATIVES = "--labels none ignores them, --labels FILE replaces them"


def layout(shape, what):
    """The layout of an array of images: "HW", "HWC", "CHW" for one, "NHW", "NHWC", "NCHW" for many; an axis of 1 to 4 holds channels.

    Raises:
        UserError: the shape fits none of them.
    """
    channels_last, channels_first = len(shape) > 2 and shape[-1] <= 4, len(shape) > 2 and shape[-3] <= 4
    if 2 <= len(shape) <= 4 and min(shape) > 0:
        kind = "HWC" if channels_last else "CHW" if channels_first else "HW"
        many = "N" * (len(shape) - len(kind))
        if len(many) <= 1:
            return many + kind
    raise UserError(f"{what}: shape {list(shape)}; accepted: [N, H, W], [N, H, W, C], [N, C, H, W], or a single image, C 1 to 4")


def load_npy_picture(entry):
    """Image (path, row), uint8 or uint16 [H, W] or [H, W, C]; row -1 is the whole array."""
    path, row = entry
    try:
        array = _open_npy(path)
        if array.flags.c_contiguous and row >= 0:
            # Read, not mapped: the pages of a map count as memory of this process once they are read.
            size = int(np.prod(array.shape[1:]))
            offset = array.offset + row * size * array.dtype.itemsize
            pixels = np.fromfile(path, array.dtype, size, offset=offset).reshape(array.shape[1:])
        else:
            pixels = np.array(array[row] if row >= 0 else array)
    except (ValueError, OSError) as error:
        raise PictureError(str(error)) from error
    return _channels_last(pixels, layout(pixels.shape, path))


@functools.lru_cache(maxsize=4)
def _open_npy(path):
    return np.lib.format.open_memmap(path, mode="r")


def _channels_last(pixels, kind):
    return pixels.transpose(1, 2, 0) if kind.endswith("CHW") else pixels


def npy_source(root):
    """A .npy array of images, or a folder of .npy files with one or more images each."""
    paths, notes = find_files(root, (".npy",))
    rows, widths, doubtful = [], [], []
    for path in paths:
        try:
            array = np.lib.format.open_memmap(path, mode="r")     # np.load would open other kinds of files too
        except Exception as error:     # NumPy raises nearly anything for a damaged header
            raise UserError(f"--images-dir {path}: not a .npy array of numbers ({error})") from error
        kind = layout(array.shape, path)
        if kind == "CHW" and array.shape[0] == 2:     # 3 and 4 are RGB and RGBA
            doubtful.append(f"{path} of shape {list(array.shape)}")
        rows.append(array.shape[0] if kind.startswith("N") else 0)
        widths.append(array.shape[kind.index("W")])

    if doubtful:
        notes.append(f"{len(doubtful)} arrays are taken as one image of several channels, not as several gray ones, first {doubtful[0]}")

    def entries():
        for path, count in zip(paths, rows):
            yield from ((path, row) for row in range(count)) if count else [(path, -1)]

    identity = digest(["npy", *map(file_facts, paths)])
    count = sum(max(1, number) for number in rows)
    return NpySource("npy arrays", load_npy_picture, entries, count, identity, notes=notes, default_resolution=width_of(max(widths)),
                     root=base_folder(root))


class NpySource(Source):
    """A Source whose entries are (path, row)."""

    def name(self, entry):
        """The file's name, with the row's number if it holds many images."""
        path, row = entry
        return super().name(path) + (f"[{row}]" if row >= 0 else "")


@dataclass(frozen=True)
class Hdf5Loader:
    """Reads a row of an array in an hdf5 file; from_matlab: see `_is_from_matlab`."""

    path: str
    key: str
    from_matlab: bool

    def __call__(self, entry):
        try:
            pixels = _open_hdf5(self.path)[self.key][entry]
        except _DAMAGED_HDF5 as error:
            raise PictureError(str(error)) from error
        pixels = pixels.T if self.from_matlab else pixels
        return _channels_last(pixels, layout(pixels.shape, self.path))


@functools.lru_cache(maxsize=1)
def _open_hdf5(path):
    import h5py

    return h5py.File(path, "r", rdcc_nbytes=64 << 20)     # cache of chunks: a chunk of many images is decompressed only once


def hdf5_source(root, key=None, own_labels=True):
    """An array of images in an hdf5 file: `key` or the only 4-dimensional one; without `own_labels` its labels are not read."""
    import h5py

    paths, notes = find_files(root, (".h5", ".hdf5"))
    if len(paths) > 1:
        raise UserError(f"--images-dir {root}: {len(paths)} hdf5 files; accepted: one")
    path = paths[0]
    try:
        with h5py.File(path, "r") as file:
            shapes = {}
            file.visititems(lambda name, node: shapes.update({name: _shape(node)}) if getattr(node, "shape", None) is not None else None)
            key = _choose_key(path, shapes, key)
            from_matlab = _is_from_matlab(file[key])
            found = _find_labels(path, shapes, key, notes) if own_labels else None
            values = None if found is None else _in_order(file[found])
    except _DAMAGED_HDF5 as error:
        raise UserError(f"--images-dir {path}: not a readable hdf5 file ({error})") from error
    if from_matlab:
        notes.append(f"the array {key} is from MATLAB, which stores axes in reverse order: it is read as {list(shapes[key])}")
    if found is not None:
        notes.append(f"the labels are taken from the array {found}")
    count, kind = shapes[key][0], layout(shapes[key], f"{path}, array {key}")
    return Source(f"{'MATLAB' if from_matlab else 'hdf5'} array {key}", Hdf5Loader(path, key, from_matlab), range(count), count,
                  digest(["hdf5", key, file_facts(path)]), notes=notes,
                  labels=None if values is None else _own_labels(values, count, f"{path}, array {found}"),
                  default_resolution=width_of(shapes[key][kind.index("W")]))


def _is_from_matlab(node):
    """Whether MATLAB stored an array, in a .mat of version 7.3: X(row, column, channel, image) as [images, channels, columns, rows]."""
    return "MATLAB_class" in node.attrs


def _in_order(node):
    """The values of an array; of MATLAB's, in MATLAB's order of axes, and a matrix of characters as the text of each row."""
    if not _is_from_matlab(node):
        return node[()]
    values = node[()].T
    if node.attrs["MATLAB_class"] != b"char":
        return values
    return np.array(["".join(map(chr, row)).strip() for row in values], object)


def _shape(node):
    """The shape of an array as this module reads it: MATLAB's axes in MATLAB's order, but the images, its last, first."""
    if not _is_from_matlab(node):
        return node.shape
    shape = node.shape[::-1]
    return shape if len(shape) < 3 else (shape[-1], *shape[:-1])


def _find_labels(path, shapes, key, notes):
    """The name of the label array that belongs to the images: one in the same group, else the only one there is; or None.

    One in the same group that has another length goes to the notes.
    """
    count = shapes[key][0]
    called = [name for name in shapes if posixpath.basename(name) in _LABEL_KEYS]
    named = [name for name in called if shapes[name][:1] == (count,) or shapes[name] == (1, count)]
    beside = [name for name in named if posixpath.dirname(name) == posixpath.dirname(key)]
    found = beside or named
    notes += [f"the array {name} {list(shapes[name])} is not used as labels: {key} holds {count} images"
              for name in called if name not in named and posixpath.dirname(name) == posixpath.dirname(key)]
    if len(found) > 1:
        raise UserError(f"{path}: {', '.join(found)} may be the labels of {key}; {_ALTERNATIVES}")
    return found[0] if found else None


def _choose_key(path, shapes, key):
    pictures = [name for name, shape in shapes.items() if len(shape) == 4]
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none"
    if key is None and len(pictures) != 1:
        raise UserError(f"{path}: {len(pictures)} four-dimensional arrays, choose one with --key; available: {listed}")
    key = key or pictures[0]
    if key not in shapes or not layout(shapes[key], f"{path}, array {key}").startswith("N"):
        raise UserError(f"--key {key}: no array of images of that name in {path}; available: {listed}")
    return key


def _own_labels(values, count, what):
    try:
        return labels.from_array(values, count)
    except ValueError as error:
        raise UserError(f"{what}: {error}; {_ALTERNATIVES}") from error


def cifar10_source(folder):
    """The training batches of CIFAR-10's python version."""
    batches = [os.path.join(folder, f"data_batch_{number}") for number in range(1, 6)]
    meta = os.path.join(folder, "batches.meta")
    for path in (*batches, meta):
        if not os.path.isfile(path):
            raise UserError(f"{folder}: {os.path.basename(path)} is missing; expected the unpacked cifar-10-python.tar.gz")
    numbers = [read_cifar_batch(path)[b"labels"] for path in batches]
    names = [name.decode() for name in _read_pickle(meta)[b"label_names"]]
    flat = [number for part in numbers for number in part]
    entries = [(path, row) for path, part in zip(batches, numbers) for row in range(len(part))]
    return NpySource("CIFAR-10", load_cifar_picture, entries, len(entries), digest(["cifar10", *map(file_facts, batches)]),
                     labels=labels.from_classes([[names[number]] for number in flat], names), default_resolution=32, root=folder)


def load_cifar_picture(entry):
    """Image (path of the batch, row): uint8 [32, 32, 3]."""
    path, row = entry
    return read_cifar_batch(path)[b"data"][row].reshape(3, 32, 32).transpose(1, 2, 0)


@functools.lru_cache(maxsize=1)
def read_cifar_batch(path):
    """A batch: dict with b"data" uint8 [n, 3072] and b"labels", list of n numbers. Raises UserError for anything else."""
    batch = _read_pickle(path)
    data, numbers = batch.get(b"data"), batch.get(b"labels")
    fits = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape == (len(numbers or ()), 3072)
    if not fits or not all(isinstance(number, int) and 0 <= number < 10 for number in numbers):
        raise UserError(f"{path}: not a CIFAR-10 batch (data uint8 [n, 3072], labels of 0 to 9)")
    return batch


def _encode(text, encoding):
    """What protocol 2 uses to make bytes; other codecs do more than encode."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it names the codec {encoding}, which is refused")
    return text.encode(encoding)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds plain data and NumPy arrays; imports nothing that the file names."""

    _known = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): _encode}
    for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        _known[_module, "_reconstruct"] = np.zeros(0).__reduce__()[0]

    def find_class(self, module, name):
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is refused")
        return self._known[module, name]


def _read_pickle(path):
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError("not a dictionary")
        return content
    except Exception as error:     # a damaged pickle may raise nearly anything
        raise UserError(f"{path}: not a CIFAR-10 file ({error})") from error
