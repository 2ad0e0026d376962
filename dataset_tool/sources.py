"""Where pictures come from: folders of files, procedural scenes; arrays and databases are in source_arrays and source_databases.

A source lives in the preparing process and hands out entries (paths, numbers, keys), one a picture and cheap to send; its loader is copied
to every worker process and turns an entry into a picture. Nothing is ever held for all pictures but their entries.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from dataclasses import dataclass, field

from dataset_tool import scenes
from dnnlib import UserError
from training.picture_files import open_picture

EXTENSIONS = {"png": (".png",), "jpg": (".jpg", ".jpeg")}


@dataclass
class SourceLabels:
    """Labels: float32 [count, classes] by entry number, or None where the loader gives them; class names; kind (one-hot, ...)."""

    values: object
    names: list
    kind: str


@dataclass(frozen=True)
class Loaded:
    """What a loader makes of an entry: PIL image or array; mask uint8 [H, W] and label [classes] where the source has them."""

    picture: object
    mask: object = None
    label: tuple = ()


@dataclass
class Source:
    """Pictures in a fixed order.

    Attributes:
        description: what it is, for the manifest and messages.
        loader: picklable function entry -> PIL image, array or Loaded; raises PictureError.
        entries: sequence of entries, or function () -> iterator over them.
        count: their number.
        identity: string that changes when the input does.
        labels: SourceLabels or None.
        notes: what was left out or should be known, for people.
        default_resolution: width to store when none is asked for.
        masks: whether the loader gives masks.
        root: folder to which names are relative.
        subfolders: number of different sub-folders the pictures are in, 0 when some are in none.
    """

    description: str
    loader: object
    entries: object
    count: int
    identity: str
    labels: object = None
    notes: list = field(default_factory=list)
    default_resolution: int = 256
    masks: bool = False
    root: str = ""
    subfolders: int = 0

    def iterate(self, start, stop):
        """Iterator over the entries start to stop."""
        entries = self.entries() if callable(self.entries) else self.entries
        return itertools.islice(entries, start, stop)

    def name(self, entry):
        """What to call an entry in messages and label files."""
        if isinstance(entry, bytes):
            return entry.decode(errors="backslashreplace")
        return relative_name(entry, self.root) if isinstance(entry, str) else str(entry)


def printable(path):
    """A path as text that can be written and printed: bytes that are no UTF-8 become \\udcXX."""
    return path.encode(errors="backslashreplace").decode()


def relative_name(path, folder):
    """What to call a file below a folder."""
    return printable(os.path.relpath(path, folder).replace(os.sep, "/"))


def width_of(pixels):
    """The largest power of two that is at most a width in pixels, the resolution stored for arrays of it."""
    return 1 << max(2, int(pixels).bit_length() - 1)


def digest(parts):
    """Short hash of an iterable of values, for identities."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(repr(part).encode() + b"\n")
    return hashed.hexdigest()[:16]


def file_facts(path):
    """(name, size, time of change) of a file: what identities are made of. A link to nowhere has facts too: whoever loads it, says so."""
    stat = os.stat(path) if os.path.exists(path) else os.lstat(path)
    return os.path.basename(path), stat.st_size, stat.st_mtime_ns


def find_files(root, extensions, flag="--images-dir"):
    """Files below a folder (or one file) with one of the extensions, in order of their paths.

    Returns:
        (list of paths, list of notes on what was left out).

    Raises:
        UserError: no such folder or nothing in it.
    """
    if os.path.isfile(root):
        return [root], []
    if not os.path.isdir(root):
        raise UserError(f"{flag} {root}: no such file or folder")
    found, notes, hidden, foreign = [], [], 0, 0
    for folder, names in _walk(root, notes):
        for name in names:
            if name.startswith("."):
                hidden += 1
            elif name.lower().endswith(extensions):
                found.append(os.path.join(folder, name))
            else:
                foreign += 1
    if not found:
        raise UserError(f"{flag} {root}: no {' or '.join(extensions)} file among the {foreign} files below it ({hidden} hidden)")
    found.sort(key=lambda path: os.path.relpath(path, root).split(os.sep))
    left_out = ((hidden, "hidden files or folders"), (foreign, "other files"))
    return found, [*map(printable, sorted(notes)), *(f"left out {count} {kind}" for count, kind in left_out if count)]


def _walk(root, notes):
    """(folder, names of its files and hidden folders) of a folder and those below it; what else is not entered goes to the notes.

    Links are entered where they lead to what would not be read without them; hidden folders are not entered.
    """
    above = {root: {os.path.realpath(root)}}

    def note(error):
        notes.append(f"left out {error.filename}: {error.strerror}")

    for folder, folders, files in os.walk(root, onerror=note, followlinks=True):
        hidden = [name for name in folders if name.startswith(".")]
        yield folder, files + hidden
        passed = above.pop(folder)
        for name in set(folders).difference(hidden):
            path = os.path.join(folder, name)
            real = os.path.realpath(path)
            if real in passed:
                notes.append(f"left out {path}: it is a link to a folder above it")
            elif os.path.islink(path) and any(_is_visible_below(real, top) for top in passed):
                notes.append(f"left out {path}: it is a link to a folder that is read anyway")
            else:
                above[path] = passed | {real}
        folders[:] = [name for name in folders if os.path.join(folder, name) in above]


def _is_visible_below(path, top):
    """Whether a path is below a folder with no hidden folder between them; both are real paths. (Beside it begins with `..`.)"""
    return not any(part.startswith(".") for part in os.path.relpath(path, top).split(os.sep))


def base_folder(path):
    """The folder to which the names of the files at a path are relative: the path itself, or the folder of the one file there."""
    return path if os.path.isdir(path) else os.path.dirname(path)


def folder_source(root, format):
    """Image files below a folder, recursively. Args: root, the folder; format, png or jpg."""
    paths, notes = find_files(root, EXTENSIONS[format])
    folder = base_folder(root)
    names = [os.path.relpath(path, folder) for path in paths]
    identity = digest(itertools.chain([format], zip(names, map(file_facts, paths))))
    parents = {os.path.dirname(name) for name in names}
    return Source(f"{format} files", open_picture, paths, len(paths), identity, notes=notes, root=folder,
                  subfolders=0 if "" in parents else len(parents))


@dataclass(frozen=True)
class SceneLoader:
    """Draws scene number `entry`."""

    seed: int
    resolution: int
    masks: bool

    def __call__(self, entry):
        scene = scenes.draw_scene(self.seed, entry, self.resolution)
        return Loaded(scene.image, scene.mask if self.masks else None, tuple(scene.counts.tolist()))


def scenes_source(count, seed, resolution, masks):
    """`count` procedural scenes, labelled with their numbers of spheres, cubes and cylinders."""
    labels = SourceLabels(None, [f"{shape}s" for shape in scenes.SHAPES], "counts")
    return Source("procedural scenes", SceneLoader(seed, resolution, masks), range(count), count, digest(["scenes", seed, masks]),
                  labels=labels, default_resolution=resolution, masks=masks)
