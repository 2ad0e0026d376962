"""The numbered files in a run's folder: network snapshots, and the training states beside them."""

from __future__ import annotations

import os

from dnnlib import UserError
from dnnlib.runs import file_number, numbered_files

SNAPSHOT = ("network-snapshot-", ".pkl")  # before and after the number, in kimg
STATE = ("training-state-", ".npz")


def snapshot_path(run_dir, images):
    """network-snapshot-<kimg>.pkl."""
    return _path(run_dir, SNAPSHOT, images)


def state_path(run_dir, images):
    """training-state-<kimg>.npz."""
    return _path(run_dir, STATE, images)


def _path(run_dir, form, images):
    prefix, suffix = form
    return os.path.join(run_dir, f"{prefix}{images // 1000:06d}{suffix}")


def snapshots(run_dir):
    """Paths of a run's network snapshots, oldest first."""
    return [path for _, path in numbered_files(run_dir, *SNAPSHOT)]


def states(run_dir):
    """Paths of a run's training states, oldest first."""
    return [path for _, path in numbered_files(run_dir, *STATE)]


def newest_readable(paths, read):
    """The newest file that can be read; a warning names each damaged one and the older one that is tried instead.

    Args:
        paths: oldest first.
        read: function path -> content, which raises UserError for a damaged file.

    Returns:
        (path, content), or (None, None) if there are no files.

    Raises:
        UserError: none can be read; why the oldest cannot.
    """
    newest_first = paths[::-1]
    for path, older in zip(newest_first, [*newest_first[1:], None]):
        try:
            return path, read(path)
        except UserError as error:
            if older is None:
                raise
            print(f"warning: {error}; falling back to {os.path.basename(older)}")
    return None, None


def snapshot_kimg(name):
    """How much a training had shown by a snapshot, in kimg, as its file name tells; None for any other name."""
    return file_number(name, *SNAPSHOT)


def remove_old(run_dir, keep):
    """Delete all but the newest `keep` snapshots and states (-1: none). A file that cannot be deleted stays, with a warning."""
    if keep > 0:
        _delete([path for files in _saved_files(run_dir) for _, path in files[:-keep]])


def remove_oldest(run_dir, images):
    """Delete the oldest snapshot and its state if they are older than those saved after `images` images.

    Returns:
        Whether a file was deleted.
    """
    older = [(kimg, path) for files in _saved_files(run_dir) for kimg, path in files if kimg < images // 1000]
    return _delete([path for kimg, path in older if kimg == min(older)[0]]) > 0


def _saved_files(run_dir):
    """The states and the snapshots of a run: two lists of (kimg, path), oldest first."""
    return [numbered_files(run_dir, *form) for form in (STATE, SNAPSHOT)]


def _delete(paths):
    """Delete files; returns how many. One that cannot be deleted stays, with a warning."""
    deleted = 0
    for path in paths:
        try:
            os.remove(path)
            deleted += 1
        except OSError as error:
            print(f"warning: cannot delete {path}: {error.strerror}")
    return deleted
