"""Rows of features by the million: in memory while small, in an unnamed temporary file when not, so that memory does not grow with N."""

import errno
import os
import tempfile

import numpy as np

IN_MEMORY_BYTES = 1 << 27
BLOCK_BYTES = 1 << 26
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Rows:
    """A float32 array [count, width] that is filled from the front.

    A killed process leaves nothing behind: the file has no name.
    """

    suffix = ".npy"

    def __init__(self, count, width, folder=None):
        """
        Args:
            count: rows that will come at most.
            width: numbers in a row.
            folder: where the temporary file is made, created when missing; the system's folder for them when None.

        Raises:
            OSError: there is no space for them.
        """
        self._filled = 0
        if 4 * count * width <= IN_MEMORY_BYTES:
            self._data = np.empty((count, width), np.float32)
        else:
            if folder:
                os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                _allocate(file, 4 * count * width, folder)
                self._data = np.memmap(file, np.float32, "r+", shape=(count, width))

    def add(self, rows):
        """Append rows [n, width]. ValueError when one is not finite: comparisons with NaN are false, and so would be what is counted."""
        end = self._filled + len(rows)
        if end > len(self._data):
            raise ValueError(f"too many rows: got {end}, expected at most {len(self._data)}")
        if not np.isfinite(rows).all():
            raise ValueError("features: got NaN or infinity, expected finite numbers")
        self._data[self._filled : end] = rows
        self._filled = end

    def save(self, file):
        """Write the rows into a binary file."""
        np.save(file, self.array)

    def load(self, path):
        """Take the rows that `save` wrote, left on disk. ValueError for a file of other rows."""
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if (stored.shape, stored.dtype) != (self._data.shape, self._data.dtype):
            raise ValueError(f"got {stored.dtype} {list(stored.shape)}, expected {self._data.dtype} {list(self._data.shape)}")
        self._data, self._filled = stored, len(stored)

    @property
    def array(self):
        """The rows so far, [n, width]; a view."""
        return self._data[: self._filled]


def _allocate(file, size, folder):
    """Give a file its space on the disk. Where a map of it is written to and the disk is full, the process would be killed (SIGBUS)."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in _FULL:  # some file systems cannot promise space
            return
        raise OSError(error.errno, f"{error.strerror} for {size / 1e6:,.0f} MB of features", folder or tempfile.gettempdir()) from None


def batches_of(array):
    """Successive blocks of rows of an array [N, width], each of about 64 MiB at most."""
    step = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield np.asarray(array[start : start + step])
