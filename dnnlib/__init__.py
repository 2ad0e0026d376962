"""Framework of this codebase: configuration, errors, files, runs, downloads. It knows nothing of GANs."""

from dnnlib.errors import UsageError, UserError, run_main
from dnnlib.files import atomic_output
from dnnlib.util import EasyDict

__all__ = ["EasyDict", "UsageError", "UserError", "atomic_output", "run_main"]
