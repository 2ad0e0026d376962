"""The published datasets: where they are, what they contain, how they are prepared."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from dataset_tool import archives, sources
from dataset_tool.source_arrays import cifar10_source
from dataset_tool.source_databases import lmdb_source, records_source
from dnnlib import UserError, atomic_output, download
from dnnlib.files import check_space


@dataclass(frozen=True)
class Published:
    """A file to download: URL (or gdrive:ID), name, size on disk in GB (for the space needed), md5, exact bytes if known."""

    url: str
    file: str
    gigabytes: float
    md5: str
    size: object = None


@dataclass(frozen=True)
class Entry:
    """A dataset of the catalog.

    Attributes:
        name, images: name and number of images.
        published: the file it is made from.
        ratio: height / width of its images.
        shards: record files to write.
        folder: the folder inside the archive that holds the images; "" searches for it.
        originals: another Published file with the original images, and its folder.
    """

    name: str
    images: int
    published: Published
    ratio: float = 1.0
    shards: int = 1
    folder: str = ""
    originals: object = None
    originals_folder: str = ""

    @property
    def help(self):
        """One line for --help."""
        return f"{self.images:,} images, {self.published.gigabytes:g} GB download"

    def path(self, options):
        """Where its file is, or is downloaded to."""
        return os.path.join(options.data_dir, "downloads", self._chosen(options)[0].file)

    def fetch(self, options):
        """Download and unpack what is missing. Returns the Source. Raises UserError."""
        published, folder = self._chosen(options)
        path = self.path(options)
        _download(published, path, options.mirror)
        source = _open(path, folder, self)
        if source.count != self.images:
            source.notes.append(f"{self.name}: {source.count:,} images, {self.images:,} were expected")
        return source

    def kept(self, options):
        """What `fetch` leaves on disk: (pattern of the paths, bytes)."""
        path = self.path(options)
        files = [path, *_files_below(_unpacked(path)), *_files_below(_folder(path))]
        return f"{path}*", sum(os.lstat(file).st_size for file in files)

    def _chosen(self, options):
        """The Published file that the options select, and the folder inside it."""
        originals = self.originals is not None and options.originals
        return (self.originals, self.originals_folder) if originals else (self.published, self.folder)


def _files_below(top):
    return [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]


def _unpacked(path):
    return f"{path}.unpacked"


def _folder(path):
    return f"{path}.folder"


def _download(published, path, mirror):
    """Download a published file to `path`; an existing file is used, once its checksum has been verified."""
    checked = f"{path}.checked"
    if os.path.isfile(path):
        if not os.path.isfile(checked):
            given = download.file_digest(path)
            if given != published.md5:
                raise UserError(f"{path}: md5 {given}, expected {published.md5}; delete it to download it again")
    else:
        missing = published.gigabytes * 1e9 - download.size_so_far(f"{path}{download.PART}")
        check_space(os.path.dirname(path), missing, f"the download of {published.file}")
        url = f"{mirror.rstrip('/')}/{published.file}" if mirror else published.url
        download.download(url, path, published.size, published.md5)
    with open(checked, "w") as file:
        file.write(published.md5)


def _open(path, folder, entry):
    """The Source of a downloaded file: the records in it, or the contents of the archive."""
    if ".tfrecords" in os.path.basename(path):
        return records_source(_folder_of(path), entry.ratio)
    archives.unpack(path, _unpacked(path))
    root = os.path.join(_unpacked(path), folder)
    if not os.path.isdir(root):
        raise UserError(f"{path}: no folder {folder} in it")
    return _recognise(root, entry)


def _folder_of(path):
    """A folder that holds only a link to the file: records are opened by folder, and the other downloads must not be seen."""
    target = os.path.join(_folder(path), os.path.basename(path))
    if not os.path.exists(target):
        os.makedirs(_folder(path), exist_ok=True)
        try:
            os.symlink(os.path.join(os.pardir, os.path.basename(path)), target)
        except FileExistsError:     # another preparation was faster
            pass
        except OSError:     # exFAT and some network file systems have no links
            with open(path, "rb") as source, atomic_output(target) as copy:
                shutil.copyfileobj(source, copy)
    return _folder(path)


def _recognise(root, entry):
    for current, folders, files in os.walk(root):
        folders.sort()
        if any(".tfrecords" in name for name in files):
            return records_source(current, entry.ratio)
        if "data.mdb" in files:
            return lmdb_source(current)
        if "data_batch_1" in files:
            return cifar10_source(current)
    found = [format for format in ("png", "jpg") if _holds(root, sources.EXTENSIONS[format])]
    if len(found) != 1:
        raise UserError(f"{root}: the download contains no records, no database and no images of a single format")
    return sources.folder_source(root, found[0])


def _holds(root, extensions):
    return any(name.lower().endswith(extensions) for _, _, files in os.walk(root) for name in files)


CATALOG = {entry.name: entry for entry in (
    Entry(
        "ffhq", 70000,
        Published("http://downloads.cs.stanford.edu/nlp/data/dorarad/ffhq-r08.tfrecords1of1", "ffhq-r08.tfrecords1of1", 13,
                  "74de4f07dc7bfb07c0ad4471fdac5e67")),
    Entry(
        "bedrooms", 3033042,
        Published("http://dl.yf.io/lsun/scenes/bedroom_train_lmdb.zip", "bedroom_train_lmdb.zip", 43, "f2c5d904a82a6295dbdccb322b4b0a99"),
        ratio=188 / 256, shards=64, folder="bedroom_train_lmdb"),
    Entry(
        "cityscapes", 24998,
        Published("gdrive:1t9Qhxm0iHFd3k-xTYEbKosSx_DkyoLLJ", "cityscapes.zip", 2, "953d231046275120dc1f73a5aebc9087"),
        ratio=0.5, shards=16),
    Entry(
        "clevr", 100015,
        Published("gdrive:1lY4JE30yk26v0MWHNpXBOMzltufUcTXj", "clevr.zip", 6, "3040bb20a29cd2f0e1e9231aebddf2a1"),
        ratio=0.75, shards=5,
        originals=Published("https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip", "CLEVR_v1.0.zip", 18,
                            "b11922020e72d0cd9154779b2d3d07d2"),
        originals_folder="CLEVR_v1.0/images"),
    Entry(
        "cifar10", 50000,
        Published("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cifar-10-python.tar.gz", 0.17,
                  "c58f30108f718f92721af3b95e74349a", 170498071)),
)}
