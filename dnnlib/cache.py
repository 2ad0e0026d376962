"""The folder for what can be made or fetched again."""

import os


def cache_folder(name):
    """Folder `name` of the cache: in GANFORMER_CACHE where that is set, else in ~/.cache/ganformer. It need not exist yet."""
    root = os.environ.get("GANFORMER_CACHE") or os.path.join("~", ".cache", "ganformer")
    return os.path.join(os.path.abspath(os.path.expanduser(root)), name)
