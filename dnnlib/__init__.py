"""Framework of this codebase: configuration, errors, files, runs, downloads. It knows nothing of GANs."""

import os

if os.name != "posix":
    raise SystemExit("error: this program needs Linux; on Windows, run it under WSL")

from dnnlib.errors import UsageError, UserError, run_main
from dnnlib.files import atomic_output
from dnnlib.util import EasyDict

# TensorFlow reads it when it is loaded, which modules do that import no more than this package before; what matters it raises in Python.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__all__ = ["EasyDict", "UsageError", "UserError", "atomic_output", "run_main"]
