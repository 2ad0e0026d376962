"""General framework of this codebase, independent of GANs: configuration, errors, files, runs, downloads."""

import os

if os.name != "posix":
    raise SystemExit("error: this program needs Linux; on Windows, run it under WSL")

from dnnlib.errors import UsageError, UserError, run_main
from dnnlib.files import atomic_output
from dnnlib.util import EasyDict

# TensorFlow reads this when it is imported, so it has to be set here, before any module does that. Real errors are raised in Python.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__all__ = ["EasyDict", "UsageError", "UserError", "atomic_output", "run_main"]
