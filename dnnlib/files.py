"""Files that are either complete or absent, the space for them, and what can be read from damaged ones."""

import contextlib
import json
import os
import secrets
import shutil

from dnnlib.errors import UserError

PARTIAL = ".partial"  # suffix of the temporary files, whose names begin with a dot


@contextlib.contextmanager
def atomic_output(path, mode="wb"):
    """Open a temporary file beside `path`; flush it to disk and rename it to `path` when the block succeeds.

    Args:
        path: final file name; its folder is created if missing.
        mode: "wb" or "w" (UTF-8).

    Yields:
        The open file, whose `name` is the path of the temporary file. If the block raises, it is removed and `path` stays as it was.

    Raises:
        OSError: it cannot be written; if the system gives a reason, the error names `path`.
    """
    try:
        with _replacing(path, mode) as file:
            yield file
    except OSError as error:
        own = error.filename is None or str(error.filename).endswith(PARTIAL)  # others are about files that the block has opened
        if own and error.errno is not None:
            error.filename = path
        raise


@contextlib.contextmanager
def _replacing(path, mode):
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    partial = os.path.join(folder, f".{os.path.basename(path)}.{secrets.token_hex(8)}{PARTIAL}")
    try:  # created like any other file: tempfile's are for the user alone, and not every file system lets that be changed
        with open(partial, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


def check_space(folder, needed, what):
    """Raise UserError unless the file system of `folder` (or of its nearest existing parent) has `needed` bytes free."""
    folder = os.path.abspath(folder)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: {what} needs about {size_text(needed)}, only {size_text(free)} are free")


def size_text(number):
    """A number of bytes in words: "1.5 GB"."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def read_object(path):
    """The JSON object in a file; {} if it is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path, keys):
    """The JSON objects in a file, one per line, that have all of these keys; none if the file is missing.

    Other lines are skipped: a killed process may have left the last one incomplete.
    """
    if not os.path.isfile(path):
        return []
    found = []
    with open(path, "rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict) and line.keys() >= set(keys)]
