"""TensorFlow layer of the framework. Importing it switches TensorFlow 2 to graph mode, once, before anything is built."""

from dnnlib.tflib.setup import (  # isort: skip (the switch comes first)
    allow_tf32,
    close_session,
    devices,
    get_session,
    half_type,
    init_tf,
    leave_workers,
    memory_errors,
    run,
    session_scope,
    tf32_allowed,
    workers,
)
from dnnlib.tflib.exchange import broadcast, gather
from dnnlib.tflib.network import Network
from dnnlib.tflib.random_streams import PerImageStreams, RandomStreams, numpy_stream
from dnnlib.tflib.snapshot import load_snapshot, save_snapshot
from dnnlib.tflib.variables import get_variable
from dnnlib.tflib.workers import Workers

__all__ = [
    "Network",
    "PerImageStreams",
    "RandomStreams",
    "Workers",
    "allow_tf32",
    "broadcast",
    "close_session",
    "devices",
    "gather",
    "get_session",
    "get_variable",
    "half_type",
    "init_tf",
    "leave_workers",
    "load_snapshot",
    "memory_errors",
    "numpy_stream",
    "run",
    "save_snapshot",
    "session_scope",
    "tf32_allowed",
    "workers",
]
