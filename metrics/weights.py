"""The feature networks' files: their sources, and how they are found, downloaded and unpacked.

No official checksums of these files could be verified; the sizes and md5 sums below are the ones that public projects pin.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tarfile
import zlib
from typing import NamedTuple

from dnnlib import UserError, atomic_output
from dnnlib.cache import cache_folder
from metrics.results import warn


class WeightFile(NamedTuple):
    """One published file of weights."""

    network: str  # as in a metric's `network`
    label: str  # its name in results
    name: str  # file name in --features-dir and in the cache
    size: int  # bytes
    md5: str
    urls: tuple[str, ...]  # of the file itself, or of the archive
    archive: str = ""  # name of a .tgz that holds the file, as it is officially distributed


WEIGHT_FILES = {
    "inception": WeightFile(
        "inception",
        "inception-2015-12-05",
        "classify_image_graph_def.pb",
        95673916,
        "e6bb154e85f5d4331c22abcddb5dcf31",
        (
            "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/classify_image_graph_def.pb",
            "http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz",
        ),
        "inception-2015-12-05.tgz",
    ),
    "vgg16": WeightFile(
        "vgg16",
        "vgg16-keras",
        "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        553467096,
        "64373286793e3c8b2b4e3219cbf3544b",
        (
            "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            "https://github.com/fchollet/deep-learning-models/releases/download/v0.1/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        ),
    ),
}


class FoundFile(NamedTuple):
    """A file of weights on this machine."""

    path: str
    label: str  # for results; says so if it is not the published file
    sha256: str


class Unavailable(Exception):
    """A feature network's file is neither here nor can it be downloaded; the text says where to put it."""


def locate(network, features_dir):
    """Path of a feature network's file, which is downloaded into the cache if it is not found.

    Args:
        network: key of WEIGHT_FILES.
        features_dir: folder that is searched first, or None.

    Returns:
        The path.

    Raises:
        Unavailable: it can neither be found nor downloaded.
        UserError: features_dir is not a folder, or holds an unsuitable archive.
    """
    published = WEIGHT_FILES[network]
    path = _placed(published, features_dir)
    if path is not None:
        return path
    failures = []
    for url in published.urls:
        try:
            return _fetch(url, published)
        except (UserError, OSError, ImportError) as error:
            failures.append(str(error))
    names = " or ".join(filter(None, (published.name, published.archive)))
    raise Unavailable(f"{published.name} is not available ({'; '.join(dict.fromkeys(failures))}); put {names} into --features-dir")


def present(network, features_dir):
    """Path of a feature network's file on this machine, in `features_dir` or in the cache, or None. Nothing is downloaded.

    Raises:
        UserError: as in `locate`.
    """
    from dnnlib import download

    published = WEIGHT_FILES[network]
    found = [_placed(published, features_dir)] + [download.cached(url) for url in published.urls if os.path.basename(url) == published.name]
    return next(filter(None, found), None)


def _placed(published, features_dir):
    """Path of a file that was placed in features_dir, as it is or in its archive; None if it is not there."""
    if not features_dir:
        return None
    if not os.path.isdir(features_dir):
        raise UserError(f"--features-dir {features_dir}: no such folder")
    placed = os.path.join(features_dir, published.name)
    if os.path.isfile(placed):
        return placed
    archive = os.path.join(features_dir, published.archive)
    return unpacked(archive, published) if published.archive and os.path.isfile(archive) else None


def _fetch(url, published):
    from dnnlib import download  # only here: manually placed files need no network code

    fetched = path = download.fetch(url)
    if published.archive and url.endswith(published.archive):
        path = unpacked(fetched, published)
    size = os.path.getsize(path)
    if size != published.size:
        raise UserError(f"{path}: {size:,} bytes from {url}, the published file has {published.size:,}; delete {fetched} to fetch it again")
    return path


def unpacked(archive, published):
    """The weights from their .tgz, unpacked into the cache once.

    Only the bytes of the expected member are used, and written to a path that the archive has no influence on: names, links and modes of
    its members have no effect.

    Args:
        archive: path of the .tgz.
        published: WeightFile that it should contain.

    Returns:
        The path of the unpacked file.

    Raises:
        UserError: it is not an archive, is truncated, lacks the member, or contains one larger than the published file.
    """
    status = os.stat(archive)
    identity = f"{os.path.abspath(archive)} {status.st_size} {status.st_mtime_ns}"
    path = os.path.join(cache_folder("features"), hashlib.sha256(identity.encode()).hexdigest()[:16], published.name)
    if os.path.isfile(path):
        return path
    try:
        with tarfile.open(archive, "r:gz") as file:
            member = next((member for member in file if member.isreg() and os.path.basename(member.name) == published.name), None)
            if member is None:
                raise UserError(f"{archive}: there is no {published.name} in it")
            if member.size > published.size:
                raise UserError(f"{archive}: {published.name} of {member.size:,} bytes, accepted up to the published {published.size:,}")
            with atomic_output(path) as output:
                shutil.copyfileobj(file.extractfile(member), output, 1 << 20)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: not a .tgz archive, or truncated ({error})") from None
    except OSError as error:  # errors of gzip are OSErrors too
        raise UserError(f"{archive}: cannot be unpacked to {path} ({error})") from None
    return path


def identify(network, path):
    """Identify a file of weights by size and checksum; warns, once per process, if it is not the published one.

    Returns:
        FoundFile. A file of another size or md5 is accepted here and labelled accordingly: its structure is checked when it is read.
    """
    status = os.stat(path)
    return _identify(network, path, status.st_size, status.st_mtime)


@functools.lru_cache(maxsize=None)
def _identify(network, path, size, modified):  # `modified` is part of the cache's key: a replaced file is identified again
    published = WEIGHT_FILES[network]
    md5, sha256 = hashlib.md5(), hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 22), b""):
            md5.update(block)
            sha256.update(block)
    label = published.label
    if (size, md5.hexdigest()) != (published.size, published.md5):
        label = f"{network}, not the published file"
        warn(
            f"{path}: {size:,} bytes, md5 {md5.hexdigest()}; the published {published.label} has {published.size:,} bytes, "
            f"md5 {published.md5}: results cannot be compared with others'"
        )
    return FoundFile(path, label, sha256.hexdigest())
