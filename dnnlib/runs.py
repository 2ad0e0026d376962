"""Run folders <result-dir>/<expname>-<NNN>, and the numbered files in them."""

import os
import re

from dnnlib.errors import UserError
from dnnlib.files import PARTIAL

_RUN = re.compile(r"(.+)-\d+")


def find_runs(result_dir, expname):
    """The runs of exactly this name, oldest first.

    Returns:
        list of (number, folder path). "clevr" never finds "clevr-scratch-000".
    """
    paths = [os.path.join(result_dir, entry) for entry in (os.listdir(result_dir) if os.path.isdir(result_dir) else ())]
    return sorted((int(path.rpartition("-")[2]), path) for path in paths if run_name(path) == expname and os.path.isdir(path))


def run_name(folder):
    """The name in the path <name>-<NNN> of a run's folder, or None for another path."""
    match = _RUN.fullmatch(os.path.basename(folder))
    return match and match.group(1)


def latest_run(result_dir, expname):
    """Folder of the latest run of this name, or None."""
    runs = find_runs(result_dir, expname)
    return runs[-1][1] if runs else None


def create_run(result_dir, expname):
    """Create the folder of the next run of this name.

    Returns:
        Its path; two processes never get the same one.

    Raises:
        UserError: the result folder cannot be written.
    """
    check_writable(result_dir)
    runs = find_runs(result_dir, expname)
    number = runs[-1][0] + 1 if runs else 0
    while True:
        folder = os.path.join(result_dir, f"{expname}-{number:03d}")
        try:
            os.mkdir(folder)
            return folder
        except FileExistsError:
            number += 1


def check_writable(folder, flag="--result-dir"):
    """Create `folder` if needed and try to write a file there; `flag` is the option that names it.

    Raises:
        UserError: it cannot be created or written.
    """
    probe = os.path.join(folder, f".write-test-{os.getpid()}")
    try:
        os.makedirs(folder, exist_ok=True)
        with open(probe, "w"):
            pass
        os.remove(probe)
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write there ({error.strerror})") from None


def file_number(name, prefix, suffix):
    """The number in a file name <prefix><digits><suffix>, or None for another name."""
    match = re.fullmatch(re.escape(prefix) + r"(\d+)" + re.escape(suffix), name)
    return match and int(match.group(1))


def numbered_files(folder, prefix, suffix):
    """The files <prefix><digits><suffix> in a folder.

    Returns:
        list of (number, path), ascending.
    """
    entries = os.listdir(folder) if os.path.isdir(folder) else ()
    numbers = ((file_number(entry, prefix, suffix), entry) for entry in entries)
    return sorted((number, os.path.join(folder, entry)) for number, entry in numbers if number is not None)


def clear_partials(folder):
    """Remove temporary files that killed processes left behind (see `atomic_output`), in the folder and its subfolders."""
    for place, _, entries in os.walk(folder):
        for entry in entries:
            if entry.startswith(".") and entry.endswith(PARTIAL):
                os.remove(os.path.join(place, entry))
