"""Millions of rows of features: in memory if they are few, else in an unnamed temporary file, so that memory does not grow with N."""

import contextlib
import errno
import os
import tempfile

import numpy as np

IN_MEMORY_BYTES = 1 << 27
BLOCK_BYTES = 1 << 26
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_bytes(count, width):
    """Size of the temporary file of Rows(count, width), 0 if they are kept in memory."""
    size = 4 * count * width
    return size if size > IN_MEMORY_BYTES else 0


def temporary_folder(wanted):
    """The folder for temporary files: the wanted one, created if missing, or the system's own if that is None or cannot be used."""
    if wanted:
        with contextlib.suppress(OSError):
            os.makedirs(wanted, exist_ok=True)
        if os.path.isdir(wanted) and os.access(wanted, os.W_OK):
            return wanted
    return tempfile.gettempdir()


class Rows:
    """A float32 array [count, width] that is filled from the start.

    A killed process leaves nothing behind, since the file has no name.
    """

    suffix = ".npy"

    def __init__(self, count, width, folder=None):
        """
        Args:
            count: largest number of rows.
            width: length of a row.
            folder: folder of the temporary file (see temporary_folder).

        Raises:
            OSError: there is not enough space.
        """
        self._filled = 0
        size = disk_bytes(count, width)
        if not size:
            self._data = np.empty((count, width), np.float32)
        else:
            folder = temporary_folder(folder)
            with tempfile.TemporaryFile(dir=folder) as file:
                _allocate(file, size, folder)
                self._data = np.memmap(file, np.float32, "r+", shape=(count, width))

    def add(self, rows):
        """Append rows [n, width]. ValueError if one is not finite: comparisons with NaN are false, and counts of them would be wrong."""
        end = self._filled + len(rows)
        if end > len(self._data):
            raise ValueError(f"too many rows: got {end}, expected at most {len(self._data)}")
        if not np.isfinite(rows).all():
            raise ValueError("features: got NaN or infinity, expected finite numbers")
        self._data[self._filled : end] = rows
        self._filled = end

    @property
    def nbytes(self):
        """Number of bytes that `save` writes, approximately."""
        return self.array.nbytes

    def save(self, file):
        """Write the rows to a binary file."""
        np.save(file, self.array)

    def load(self, path):
        """Use the rows that `save` wrote, without reading them into memory. ValueError if their shape or type differs."""
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if (stored.shape, stored.dtype) != (self._data.shape, self._data.dtype):
            raise ValueError(f"got {stored.dtype} {list(stored.shape)}, expected {self._data.dtype} {list(self._data.shape)}")
        self._data, self._filled = stored, len(stored)

    @property
    def array(self):
        """View of the rows so far, [n, width]."""
        return self._data[: self._filled]


def _allocate(file, size, folder):
    """Reserve a file's space on the disk: writing to a memory map of a file on a full disk would kill the process (SIGBUS)."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in _FULL:  # some file systems cannot reserve space
            return
        raise OSError(error.errno, f"{error.strerror} for {size / 1e6:,.0f} MB of features", folder) from None


def batches_of(array):
    """Successive blocks of rows of an array [N, width], of at most about 64 MiB each."""
    step = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield np.asarray(array[start : start + step])
