"""TensorFlow layer of the framework. Importing it switches TensorFlow 2 to graph mode, once, before anything else is built."""

from dnnlib.tflib.setup import close_session, devices, get_session, half_type, init_tf, leave_workers, run, session_scope, workers  # isort: skip (the switch comes first)
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
    "numpy_stream",
    "run",
    "save_snapshot",
    "session_scope",
    "workers",
]
