"""Statistics of the real images, cached between evaluations under a key of everything they depend on."""

import contextlib
import hashlib
import json
import os
import time

import numpy as np

from dnnlib import UserError, atomic_output
from dnnlib.files import PARTIAL, check_space, size_text
from metrics.results import warn

ABANDONED_SECONDS = 86400  # no running evaluation has a temporary file this old
LARGE_BYTES = 100e6  # files from this size on are announced


class ReferenceCache:
    """Files of a folder, each of them complete or missing: a killed evaluation leaves those that it finished."""

    def __init__(self, folder):
        """Args: folder: created when the first file is saved."""
        self._folder = folder

    def _path(self, name):
        return os.path.join(self._folder, name)

    def load(self, name, read):
        """Call read(path) if the file exists.

        Returns:
            Whether it was read. An unreadable file counts as missing, with a warning.
        """
        if not os.path.isfile(self._path(name)):
            return False
        try:
            read(self._path(name))
        except Exception as error:  # NumPy raises nearly anything for damaged .npy and .npz files
            warn(f"{self._path(name)}: unreadable reference statistics, computed again ({type(error).__name__}: {error})".splitlines()[0])
            return False
        return True

    def save(self, name, write, size):
        """Call write(binary file), which writes about `size` bytes, and keep the file. A full or read-only disk is only a warning."""
        path = self._path(name)
        try:
            check_space(self._folder, size, "the file")
            with atomic_output(path) as file:
                self._remove_abandoned()
                write(file)
        except (OSError, UserError) as error:
            warn(f"{path}: reference statistics are not kept ({getattr(error, 'strerror', None) or error})")
            return
        if size >= LARGE_BYTES:
            print(f"reference statistics for later evaluations: {size_text(size)} in {path} (may be deleted)", flush=True)

    def _remove_abandoned(self):
        """Remove temporary files of killed evaluations."""
        for entry in os.listdir(self._folder):
            path = self._path(entry)
            with contextlib.suppress(FileNotFoundError):  # another evaluation may do the same
                if entry.endswith(PARTIAL) and time.time() - os.path.getmtime(path) > ABANDONED_SECONDS:
                    os.remove(path)

    def array(self, name, compute):
        """The array stored under a name, or else the result of compute(), which is then stored."""
        stored = []
        if self.load(name, lambda path: stored.append(np.load(path, allow_pickle=False))):
            return stored[0]
        array = compute()
        self.save(name, lambda file: np.save(file, array), array.nbytes)
        return array


def reference_key(fields):
    """16 hex digits that change with any of the fields (plain data)."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
