"""Unpacks zip and tar archives into a folder, and nowhere else."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib

from dnnlib import UserError, locks
from dnnlib.files import check_space

_BLOCK = 1 << 20


def unpack(archive, folder):
    """Unpack a zip or tar archive to `folder`, unless an earlier call has done so; regular files only.

    While another process unpacks it, wait.

    Raises:
        UserError: not an archive, damaged, a member outside the folder, a link, a member of another size than announced, no space.
    """
    if os.path.isdir(folder):
        return
    with locks.held(f"{folder}.lock"):
        if not os.path.isdir(folder):
            _unpack_locked(archive, folder)


def _unpack_locked(archive, folder):
    partial = f"{folder}.unpacking"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                members = [(entry.filename, entry.file_size, _zip_kind(entry), entry) for entry in file.infolist()]
                _extract(archive, members, file.open, partial)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as file:
                members = [(entry.name, entry.size, _tar_kind(entry), entry) for entry in file]
                _extract(archive, members, file.extractfile, partial)
        else:
            raise UserError(f"{archive}: neither a zip nor a tar archive")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{archive}: cannot be unpacked to {partial} ({error})") from error
    os.rename(partial, folder)


def _zip_kind(entry):
    if entry.is_dir():
        return "folder"
    return "link" if stat.S_ISLNK(entry.external_attr >> 16) else "file"


def _tar_kind(entry):
    return "folder" if entry.isdir() else "file" if entry.isfile() else "link"


def _extract(archive, members, open_member, folder):
    for name, _, kind, _ in members:
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise UserError(f"{archive}: member {name} would be written outside the folder; nothing was unpacked")
        if kind == "link":
            raise UserError(f"{archive}: member {name} is a link or device; accepted: files and folders")
    check_space(os.path.dirname(os.path.abspath(folder)), sum(size for _, size, _, _ in members), f"unpacking {os.path.basename(archive)}")
    os.makedirs(folder)
    for name, size, kind, entry in members:
        target = os.path.join(folder, *name.replace("\\", "/").split("/"))
        if kind == "folder":
            os.makedirs(target, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open_member(entry) as source, open(target, "wb") as output:
            _copy(source, output, size, f"{archive}: member {name}")


def _copy(source, output, size, what):
    """Copy exactly `size` bytes: an archive that unpacks to more than it announces is rejected."""
    left = size
    while True:
        block = source.read(min(_BLOCK, left + 1))
        left -= len(block)
        if left < 0 or (not block and left):
            raise UserError(f"{what} does not have the announced size of {size} bytes")
        if not block:
            return
        output.write(block)
