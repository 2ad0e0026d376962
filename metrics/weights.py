"""The feature networks' files: where they come from, and how one is found or fetched.

Nobody publishes a checksum of these files that was verified here; sizes and md5 sums below are the ones public projects pin.
"""

import functools
import hashlib
import os
from typing import NamedTuple, Tuple

from dnnlib import UserError
from metrics.results import warn


class WeightFile(NamedTuple):
    """One published file of weights."""

    network: str  # as in a metric's `network`
    label: str  # what results call it
    name: str  # file name in --features-dir and in the cache
    size: int  # bytes
    md5: str
    urls: Tuple[str, ...]


WEIGHT_FILES = {
    "inception": WeightFile(
        "inception",
        "inception-2015-12-05",
        "classify_image_graph_def.pb",
        95673916,
        "e6bb154e85f5d4331c22abcddb5dcf31",
        ("https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/classify_image_graph_def.pb",),
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
    label: str  # for results; says so when it is not the published file
    sha256: str


class Unavailable(Exception):
    """A feature network's file is neither here nor to be had; the text says where it may be put."""


def locate(network, features_dir):
    """Path of a feature network's file, downloaded into the cache when it is nowhere.

    Args:
        network: key of WEIGHT_FILES.
        features_dir: folder searched first, or None.

    Returns:
        The path.

    Raises:
        Unavailable: it cannot be had.
        UserError: features_dir is not a folder.
    """
    published = WEIGHT_FILES[network]
    if features_dir:
        if not os.path.isdir(features_dir):
            raise UserError(f"--features-dir {features_dir}: no such folder")
        placed = os.path.join(features_dir, published.name)
        if os.path.isfile(placed):
            return placed
    failure = None
    for url in published.urls:
        try:
            return _fetch(url, published)
        except (UserError, OSError, ImportError) as error:
            failure = error
    raise Unavailable(f"{published.name} is not available ({failure}); put it into --features-dir")


def _fetch(url, published):
    from dnnlib import download  # only here: files placed by hand need no network code

    path = download.fetch(url)
    size = os.path.getsize(path)
    if size != published.size:
        raise UserError(f"{path}: {size:,} bytes from {url}, the published file has {published.size:,}; delete it to fetch it again")
    return path


def identify(network, path):
    """What a file of weights is, by size and checksum; warns, once a process, when it is not the published one.

    Returns:
        FoundFile. A file of another size or md5 is accepted here and labelled as what it is: its structure is checked when it is read.
    """
    status = os.stat(path)
    return _identify(network, path, status.st_size, status.st_mtime)


@functools.lru_cache(maxsize=None)
def _identify(network, path, size, modified):
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
