"""Lock files: one owner at a time. The system releases a lock when its owner dies, so it cannot go stale."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time

_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # what file systems without locks answer
_INTERVAL = 0.2  # seconds between two attempts


def take(path):
    """Take the lock file `path`, created if missing, and write this process's name into it.

    On a file system without locks it warns and goes on: nothing keeps a second process out.

    Returns:
        The open file; the lock lasts until it is closed. Its owner may remove `path` before that.

    Raises:
        BlockingIOError: another process holds it (see `owner`).
        OSError: the file cannot be opened.
    """
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held by the caller
        try:
            _lock(file)
        except BaseException:
            file.close()
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()  # its last owner has removed it meanwhile
    with contextlib.suppress(OSError):  # a full disk: the lock holds without the name
        file.truncate(0)
        os.write(file.fileno(), f"process {os.getpid()} on {os.uname().nodename}\n".encode())  # unbuffered: no retry on closing
    return file


@contextlib.contextmanager
def freed_by_errors(file):
    """Context that closes a lock's file (or None) if the block fails: whoever keeps the exception, as a notebook does, keeps it open."""
    try:
        yield
    except BaseException:
        if file is not None:
            file.close()
        raise


def _lock(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        print(f"warning: {file.name}: this file system has no locks ({error.strerror}); do not start the same work twice", file=sys.stderr)


@contextlib.contextmanager
def held(path, busy=None):
    """Context in which this process holds the lock file `path`; the file is removed at the end.

    Args:
        path: the lock file.
        busy: function (path, owner in words, seconds waited so far), called before each wait for another owner; what it raises ends the
            waiting. By default the wait is announced and has no limit.

    Raises:
        OSError: the file cannot be opened.
    """
    file = _take_when_free(path, busy or _announce)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path)
        file.close()


def _take_when_free(path, busy):
    start, waited = time.monotonic(), 0.0
    while True:
        with contextlib.suppress(BlockingIOError):
            return take(path)
        busy(path, owner(path), waited)
        time.sleep(_INTERVAL)
        waited = time.monotonic() - start


def _announce(path, owner, waited):
    if not waited:
        print(f"{path}: held by {owner}, waiting for it to finish", file=sys.stderr, flush=True)


def owner(path):
    """Who holds the lock file `path`, in words."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        return file.read().strip() or "another process"
    return "another process"
