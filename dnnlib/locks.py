"""Lock files: one owner at a time. The system releases a lock with its owner's death, so that it cannot go stale."""

from __future__ import annotations

import contextlib
import os


def take(path):
    """Take the lock file `path`, made where it is missing, and write this process's name into it.

    Returns:
        The open file; the lock lasts until it is closed. Its owner may remove `path` before that.

    Raises:
        BlockingIOError: another process holds it (see `owner`).
        OSError: the file cannot be opened, or there are no locks: on some file systems, on Windows.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError("no lock files on Windows") from None
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held by the caller
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            file.close()
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()  # its last owner has removed it meanwhile
    with contextlib.suppress(OSError):  # a full disk: the lock holds without the name
        file.truncate(0)
        os.write(file.fileno(), f"process {os.getpid()} on {os.uname().nodename}\n".encode())  # past the buffer: closing would try again
    return file


def owner(path):
    """Who holds the lock file `path`, in words."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        return file.read().strip() or "another process"
    return "another process"
