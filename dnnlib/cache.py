"""The folder for files that can be rebuilt or downloaded again."""

import os


def cache_folder(name):
    """Folder `name` of the cache: in GANFORMER_CACHE if that is set, else in ~/.cache/ganformer. It need not exist yet."""
    root = os.environ.get("GANFORMER_CACHE") or os.path.join("~", ".cache", "ganformer")
    return os.path.join(os.path.abspath(os.path.expanduser(root)), name)
