"""General framework of this codebase, independent of GANs: configuration, errors, files, runs, downloads."""

import importlib.util
import os
import platform
import sys

if os.name != "posix":
    raise SystemExit("error: this program needs Linux; on Windows, run it under WSL")
if sys.version_info < (3, 7) or None in map(importlib.util.find_spec, ("numpy", "PIL", "tqdm", "google_crc32c")):
    fault = "lacks packages that are needed" if sys.version_info >= (3, 7) else "is too old"
    raise SystemExit(f"error: {sys.executable} (Python {platform.python_version()}) {fault}; accepted: .venv-tf2/bin/python, after "
                     "`make setup`, or Python 3.7 or 3.10 to 3.13 with `pip install -r requirements.txt`")  # fmt: skip

from dnnlib.errors import UsageError, UserError, run_main
from dnnlib.files import atomic_output
from dnnlib.util import EasyDict

# TensorFlow reads this when it is imported, so it has to be set here, before any module does that. Real errors are raised in Python.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__all__ = ["EasyDict", "UsageError", "UserError", "atomic_output", "run_main"]
