"""Statistics of the real images, kept between evaluations under a key of everything they depend on."""

import contextlib
import hashlib
import json
import os
import time

import numpy as np

from dnnlib import atomic_output
from dnnlib.files import PARTIAL
from metrics.results import warn

ABANDONED_SECONDS = 86400  # a temporary file this old belongs to no evaluation that is still running


class ReferenceCache:
    """Files of a folder, each whole or not there: killing an evaluation leaves the ones it finished."""

    def __init__(self, folder):
        """Args: folder: created when something is saved."""
        self._folder = folder

    def _path(self, name):
        return os.path.join(self._folder, name)

    def load(self, name, read):
        """Call read(path) if the file is there.

        Returns:
            Whether it was read. An unreadable file counts as missing, with a warning.
        """
        if not os.path.isfile(self._path(name)):
            return False
        try:
            read(self._path(name))
        except Exception as error:  # damaged .npy and .npz files make NumPy raise nearly anything
            warn(f"{self._path(name)}: unreadable reference statistics, computed again ({type(error).__name__}: {error})".splitlines()[0])
            return False
        return True

    def save(self, name, write):
        """Call write(binary file) and keep what it wrote; a full or read-only disk is a warning."""
        try:
            with atomic_output(self._path(name)) as file:
                self._remove_abandoned()
                write(file)
        except OSError as error:
            warn(f"{self._path(name)}: reference statistics are not kept ({error.strerror or error})")

    def _remove_abandoned(self):
        """Remove what killed evaluations began to write."""
        for entry in os.listdir(self._folder):
            path = self._path(entry)
            with contextlib.suppress(FileNotFoundError):  # another evaluation may do the same
                if entry.endswith(PARTIAL) and time.time() - os.path.getmtime(path) > ABANDONED_SECONDS:
                    os.remove(path)

    def array(self, name, compute):
        """The array stored under a name, or compute()'s, which is then stored."""
        stored = []
        if self.load(name, lambda path: stored.append(np.load(path, allow_pickle=False))):
            return stored[0]
        array = compute()
        self.save(name, lambda file: np.save(file, array))
        return array


def reference_key(fields):
    """16 hex digits that differ whenever one of the fields (plain data) does."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
