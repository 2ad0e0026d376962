"""TensorFlow's settings, devices and sessions: the only place with global state."""

import contextlib
import os
import sys
import warnings

from dnnlib.errors import UserError, not_installed
from dnnlib.gpus import driver, machine_gpus

warnings.filterwarnings("ignore", category=FutureWarning, module="tensor")  # TensorFlow 1.15 under NumPy 1.18

try:
    import tensorflow.compat.v1 as tf
except ModuleNotFoundError as error:
    raise SystemExit(f"error: {not_installed(error)}") from None
if [int(number) for number in tf.__version__.split(".")[:2]] < [1, 15]:
    raise SystemExit(f"error: {sys.executable} has TensorFlow {tf.__version__}; accepted: 1.15 or 2, as in requirements.txt")

tf.logging.set_verbosity(tf.logging.ERROR)
tf.disable_v2_behavior()
tf.enable_resource_variables()  # disable_v2_behavior turned them off, so this comes second

from dnnlib.tflib.workers import Workers  # noqa: E402

_shown_gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
_cpu_replicas = 1
_workers = Workers()
_tf32 = False


def init_tf(gpus="0", cpu_replicas=1, together=None):
    """Choose the devices and open the session. Call this once, before the first graph is built.

    Args:
        gpus: comma list of GPU numbers ("0,1"), or "cpu" for none.
        cpu_replicas: number of virtual CPU devices if no GPU is used (for testing replication).
        together: Workers that this process trains with, or None to train alone.

    Returns:
        The device strings over which training is replicated.

    Raises:
        UserError: a requested GPU does not exist although others do, or CUDA_VISIBLE_DEVICES hides it.
    """
    global _cpu_replicas, _workers
    os.environ["CUDA_VISIBLE_DEVICES"] = _cuda_devices(gpus)
    _cpu_replicas = cpu_replicas
    if together is not None:
        _workers = together
        _workers.start(_session_config(optimize=True))
    names = devices()
    if gpus != "cpu":
        _check_gpus(gpus, seen=sum(name.startswith("/gpu") for name in names))
    return names


def _check_gpus(gpus, seen):
    asked = gpus.split(",")
    if seen == len(asked):
        return
    there = machine_gpus() if _shown_gpus is None else 0
    if there and max(map(int, asked)) >= there:  # CUDA ignores this number and all that follow
        raise UserError(f"--gpus {gpus}: this machine has {there} GPU{'s' * (there > 1)}, accepted: 0 to {there - 1}")
    if seen:
        raise UserError(f"--gpus {gpus}: {len(asked)} GPUs requested, TensorFlow sees {seen}")


def _cuda_devices(gpus):
    """CUDA_VISIBLE_DEVICES for a choice of GPUs, which are numbered among those that the environment makes visible."""
    if gpus == "cpu" or _shown_gpus == "":
        return ""
    if _shown_gpus is None:
        return gpus
    shown = _shown_gpus.split(",")
    if max(int(number) for number in gpus.split(",")) >= len(shown):
        raise UserError(f"--gpus {gpus}: CUDA_VISIBLE_DEVICES={_shown_gpus} has {len(shown)}, accepted: 0 to {len(shown) - 1}")
    return ",".join(shown[int(number)] for number in gpus.split(","))


def _session_config(optimize):
    config = tf.ConfigProto(allow_soft_placement=True)
    config.graph_options.rewrite_options.disable_meta_optimizer = not optimize
    config.graph_options.place_pruned_graph = _prepares_what_runs()
    config.device_count["CPU"] = _cpu_replicas
    config.gpu_options.allow_growth = True
    _workers.configure(config)
    return config


def _prepares_what_runs():
    """Whether sessions place just the part of the graph that a run needs, instead of rewriting the whole graph for every new fetch.

    Rewriting takes a third of the start-up time. Without it, CPUs train 2 to 12 % slower in TensorFlow 2, but 8 to 18 % faster in 1.15.
    """
    without_gpu = os.environ.get("CUDA_VISIBLE_DEVICES") == "" or driver() is None
    return without_gpu and not tf.__version__.startswith("1.")


def _session_of(graph, optimize=True):
    session = getattr(graph, "_tflib_session", None)
    if session is None:
        session = tf.Session(_workers.target, graph=graph, config=_session_config(optimize))
        graph._tflib_session = session
    return session


def get_session():
    """The default session, or that of the default graph (opened at first use)."""
    session = tf.get_default_session()
    if session is not None and session.graph is tf.get_default_graph():
        return session
    return _session_of(tf.get_default_graph())


def close_session():
    """Close the session of the default graph, if it has one."""
    graph = tf.get_default_graph()
    session = getattr(graph, "_tflib_session", None)
    if session is not None:
        session.close()
        graph._tflib_session = None


@contextlib.contextmanager
def session_scope(optimize=True):
    """Context with a new graph and session, which end with it.

    Args:
        optimize: let TensorFlow rewrite graphs before they run; this pays off after a few dozen runs.
    """
    with tf.Graph().as_default() as graph:
        try:
            yield _session_of(graph, optimize)
        finally:
            close_session()


@contextlib.contextmanager
def memory_errors(option=None, batch=1):
    """Context that turns TensorFlow's out-of-memory error into a UserError.

    Args:
        option: the option that gives the number of images that a device takes at once.
        batch: that number.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        lines = str(error).splitlines()
        reason = next((line for line in lines if "OOM" in line), lines[0])  # TensorFlow 2 begins with the place, not with the reason
        raise UserError(f"out of memory, {_memory_advice(option, batch)} ({reason.strip()})") from None


def _memory_advice(option, batch):
    if batch > 1:
        return f"lower {option} (now {batch})"
    on_gpu = devices()[0].startswith("/gpu")
    return f"even with one image at a time: {'try --gpus cpu' if on_gpu else 'use a machine with more memory'}"


def half_type():
    """The 16-bit type for mixed precision: float16 on GPUs, bfloat16 on CPUs whose convolutions support it (TensorFlow 2)."""
    on_cpu = devices()[0].startswith("/cpu")
    return tf.bfloat16 if on_cpu and not tf.__version__.startswith("1.") else tf.float16


def allow_tf32(allowed):
    """Set whether GPUs from Ampere on may round the factors of float32 products to 10 bits of fraction (TF32); before any session.

    TensorFlow 2 allows it by default, and so do NVIDIA's builds of 1.15. Here float32 is float32, as on every other device, unless allowed.
    """
    global _tf32
    _tf32 = allowed
    if tf.__version__.startswith("1."):
        os.environ["NVIDIA_TF32_OVERRIDE"] = "1" if allowed else "0"  # read by CUDA's libraries; 1 leaves the choice to TensorFlow
    else:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)


def tf32_allowed():
    """Whether products of float32 may be TF32: see allow_tf32."""
    return _tf32


allow_tf32(False)


def workers():
    """The Workers of this process."""
    return _workers


def leave_workers():
    """Work alone from now on, in local sessions: the joint training is over."""
    global _workers
    close_session()
    _workers = Workers()


def run(fetches, feed_dict=None):
    """Evaluate tensors or operations in the current session."""
    return get_session().run(fetches, feed_dict=feed_dict)


def devices():
    """Device strings for replication: the visible GPUs, else the CPU devices."""
    listed = get_session().list_devices()
    gpus = sum(device.device_type == "GPU" and f"/task:{_workers.rank}/" in device.name for device in listed)
    if gpus:
        return [f"/gpu:{index}" for index in range(gpus)]
    return [f"/cpu:{index}" for index in range(_cpu_replicas)]
