"""The folder for files that can be rebuilt or downloaded again."""

import os


def cache_folder(name):
    """Folder `name` of the cache: in GANFORMER_CACHE if that is set, else in ganformer in the user's folder for caches, which is
    XDG_CACHE_HOME, by default ~/.cache (XDG Base Directory specification). It need not exist yet."""
    root = os.environ.get("GANFORMER_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "ganformer")
    root = os.path.expanduser(root)
    if root.startswith("~"):  # no HOME, and a user whom the container does not know: no folder here should be named like the home folder
        root = root.partition(os.sep)[2]
    return os.path.join(os.path.abspath(root), name)
