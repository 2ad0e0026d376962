"""Where images come from: folders of files and procedural scenes; source_arrays and source_databases have the others.

A source lives in the preparing process and hands out entries (paths, numbers, keys), one per image and cheap to send; its loader is copied
to every worker process and turns an entry into an image. Only the entries are ever held in memory for all images.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from dataclasses import dataclass, field

from dataset_tool import scenes
from dnnlib import UserError
from dnnlib.util import listed
from training import picture_files

# --format of image files -> how their names end.
EXTENSIONS = {
    "images": tuple(itertools.chain.from_iterable(picture_files.EXTENSIONS.values())),
    "png": picture_files.EXTENSIONS["PNG"],
    "jpg": picture_files.EXTENSIONS["JPEG"],
}


@dataclass
class SourceLabels:
    """Labels: float32 [count, classes] by entry number, or None if the loader provides them; class names; kind (one-hot, ...)."""

    values: object
    names: list
    kind: str


@dataclass(frozen=True)
class Loaded:
    """What a loader returns for an entry: PIL image or array; mask uint8 [H, W] and label [classes] if the source has them."""

    picture: object
    mask: object = None
    label: tuple = ()


@dataclass
class Source:
    """Images in a fixed order.

    Attributes:
        description: what it is, for the manifest and messages.
        loader: picklable function entry -> PIL image, array or Loaded; raises PictureError.
        entries: sequence of entries, or function () -> iterator over them.
        count: their number.
        identity: string that changes when the input does.
        labels: SourceLabels or None.
        notes: messages for the user, such as what was left out.
        default_resolution: width to store if none is requested.
        masks: whether the loader provides masks.
        root: folder to which names are relative.
        subfolders: number of different sub-folders the images are in, 0 if some are in none.
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
    """A path as text that can be written and printed: bytes that are not UTF-8 become \\udcXX."""
    return path.encode(errors="backslashreplace").decode()


def relative_name(path, folder):
    """What to call a file below a folder."""
    return printable(os.path.relpath(path, folder).replace(os.sep, "/"))


def width_of(pixels):
    """The largest power of two up to a width in pixels: the default resolution for arrays of that width."""
    return 1 << max(2, int(pixels).bit_length() - 1)


def digest(parts):
    """Short hash of an iterable of values, for identities."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(repr(part).encode() + b"\n")
    return hashed.hexdigest()[:16]


def file_facts(path):
    """(name, size, modification time) of a file, which make up identities. A dangling link has them too; loading it reports the error."""
    stat = os.stat(path) if os.path.exists(path) else os.lstat(path)
    return os.path.basename(path), stat.st_size, stat.st_mtime_ns


def find_files(root, extensions, flag="--images-dir"):
    """Files with one of the extensions below a folder (or the one file given), in order of their paths.

    Returns:
        (list of paths, list of notes about what was left out).

    Raises:
        UserError: no such folder, or no such file in it.
    """
    if os.path.isfile(root):
        return [root], []
    if not os.path.isdir(root):
        raise UserError(f"{flag} {root}: no such file or folder")
    found, notes, hidden, foreign = [], [], 0, Counter()
    for folder, names in _walk(root, notes):
        for name in names:
            if name.startswith("."):
                hidden += 1
            elif name.lower().endswith(extensions):
                found.append(os.path.join(folder, name))
            else:
                foreign[_extension(name)] += 1
    left_out = [f"{hidden} hidden files or folders"] if hidden else []
    if foreign:
        left_out.append(f"{sum(foreign.values())} other files: {_by_extension(foreign)}")
    if not found:
        there = f", only {' and '.join(left_out)}" if left_out else ""
        raise UserError(f"{flag} {root}: no {' or '.join(extensions)} file below it{there}")
    found.sort(key=lambda path: os.path.relpath(path, root).split(os.sep))
    return found, [*map(printable, sorted(notes)), *(f"left out {what}" for what in left_out)]


def _extension(name):
    return os.path.splitext(name)[1].lower()


def _by_extension(counts):
    """A Counter of extensions in words, the most frequent first: "2 .txt, 1 .json"."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return listed([f"{count} {printable(extension) or 'without extension'}" for extension, count in ordered])


def _walk(root, notes):
    """Yields (folder, names of its files and hidden folders) for a folder and those below it; others that are skipped go to the notes.

    Links are followed if their target would not be read otherwise; hidden folders are not entered.
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
                notes.append(f"left out {path}: it links to a folder above it")
            elif os.path.islink(path) and any(_is_visible_below(real, top) for top in passed):
                notes.append(f"left out {path}: it links to a folder that is read anyway")
            else:
                above[path] = passed | {real}
        folders[:] = [name for name in folders if os.path.join(folder, name) in above]


def _is_visible_below(path, top):
    """Whether a path is below a folder with no hidden folder between them; both are real paths. (Outside, the relative path has `..`.)"""
    return not any(part.startswith(".") for part in os.path.relpath(path, top).split(os.sep))


def base_folder(path):
    """The folder to which the file names at a path are relative: the path itself, or the folder of the file at that path."""
    return path if os.path.isdir(path) else os.path.dirname(path)


def folder_source(root, format):
    """Image files below a folder, recursively. Args: root, the folder; format, one of EXTENSIONS."""
    paths, notes = find_files(root, EXTENSIONS[format])
    folder = base_folder(root)
    names = [os.path.relpath(path, folder) for path in paths]
    counts = Counter(map(_extension, paths))
    found = [group[0][1:] for group in picture_files.EXTENSIONS.values() if counts.keys() & set(group)]
    if len(found) > 1:
        notes.insert(0, f"found {_by_extension(counts)} files; --format png or jpg takes only those")
    kinds = ", ".join(found) if found and format == "images" else format
    identity = digest(itertools.chain([kinds], zip(names, map(file_facts, paths))))
    parents = {os.path.dirname(name) for name in names}
    return Source(f"{kinds} files", picture_files.open_picture, paths, len(paths), identity, notes=notes, root=folder,
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
    """`count` procedural scenes, labelled with the numbers of spheres, cubes and cylinders in them."""
    labels = SourceLabels(None, [f"{shape}s" for shape in scenes.SHAPES], "counts")
    return Source("procedural scenes", SceneLoader(seed, resolution, masks), range(count), count, digest(["scenes", seed, masks]),
                  labels=labels, default_resolution=resolution, masks=masks)
