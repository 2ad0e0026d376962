"""Which implementation the ops use: the compiled library or the reference twins in TensorFlow."""

from __future__ import annotations

import os
import re
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from dnnlib.toolchain import BuildError
from ops import builder

CHOICES = ("auto", "cuda", "ref")


class _State:
    """The choice of this process: TensorFlow registers ops once per process, so there is at most one library."""

    library = None      # the module of tf.load_op_library
    path = None
    active = False      # ops use the library by default
    on_gpu = False


_state = _State()


def set_implementation(choice):
    """Choose the implementation of fused_bias_act, scaled_bias_act and upfirdn_2d for everything built from now on (`--ops`).

    Call it after tflib.init_tf, which decides whether there is a GPU.

    Args:
        choice: "ref" for the reference twins; "cuda" for the compiled library, built now if necessary, with GPU kernels if TensorFlow
            uses a GPU (else CPU kernels only); "auto" for the library where it is worth it: on a GPU it is built, on the CPU it is
            used if it has been built before. docs/cuda.md explains the policy.

    Returns:
        A line for the log of the run: what will be used.

    Raises:
        UserError: unknown choice, or "cuda" and the library cannot be built or loaded or fails `check` on the GPU.
    """
    try:
        return activate(choice)
    except BuildError as error:
        raise UserError(f"--ops {choice}: {error}") from None


def activate(choice):
    """`set_implementation` for a caller with no flag to name: with "cuda" raises BuildError."""
    if choice not in CHOICES:
        raise UserError(f"--ops {choice}: accepted are {', '.join(CHOICES)}")
    _state.active = False
    if choice == "ref":
        return description()
    _state.on_gpu = tflib.devices()[0].startswith("/gpu")
    try:
        _state.active = _load(_state.on_gpu, may_build=_state.on_gpu or choice == "cuda")
    except BuildError as error:
        if choice == "cuda":
            raise
        print(f"warning: compiled ops are not available, using the slower reference: {error}", file=sys.stderr)
    return description()


def on_gpu():
    """Whether TensorFlow used a GPU when the implementation was chosen."""
    return _state.on_gpu


def description():
    """What is in use, in words."""
    return f"compiled ops: {_state.path}" if _state.active else "compiled ops: none, reference implementation"


def _load(with_gpu, may_build):
    """Load the library once, and test its GPU kernels on all GPUs. Returns whether there is a library."""
    if _state.library is not None:
        return True
    try:
        what = builder.plan(with_gpu)
    except BuildError:
        if may_build:
            raise
        return False
    if not os.path.exists(what.path):
        if not may_build:
            return False
        print(f"compiling ops into {what.path} (once; log: {what.log})", file=sys.stderr)
    path = builder.build(what)
    try:
        loaded = tf.load_op_library(path)
    except (tf.errors.OpError, OSError) as error:
        raise BuildError(f"TensorFlow cannot load {path} (delete it to rebuild it): {error}", what.log) from None
    for device in tflib.devices() if with_gpu else ():
        check(loaded, device, what.log)
    _state.library, _state.path = loaded, path
    return True


def check(loaded, device, log=None):
    """Compute a small bias_act and upfirdn2d on a device and compare with NumPy: a library that loads does not necessarily run there.

    Args:
        loaded: module of tf.load_op_library.
        device: such as "/gpu:0".
        log: path of the compilers' output, for the error.

    Raises:
        BuildError: an op fails or its results are wrong.
    """
    random = np.random.RandomState(0)
    x, bias, taps = random.randn(2, 3, 5, 4), random.randn(4), np.array([1.0, 3.0, 2.0, 0.5])
    try:
        computed = _compute_small_ops(loaded, device, x, bias, taps)
    except (tf.errors.OpError, ValueError, TypeError) as error:  # from the session, from building the graph
        reason = re.split(r"\nNode: .*\n", str(error))[-1].partition("\n")[0]  # in TensorFlow 2 the Python stack comes first
        raise BuildError(f"compiled ops fail on {device}: {reason}", log) from None
    u, spread = x + bias, np.zeros((2, 6, 10, 4))
    spread[:, ::2, ::2] = x
    for axis in (1, 2):
        spread = np.apply_along_axis(np.convolve, axis, spread, taps)
    expected = {"bias_act": np.clip(1.5 * np.where(u > 0, u, 0.2 * u), -2.0, 2.0), "upfirdn2d": spread[:, 1:-2, 1:-2]}
    for name, values in expected.items():
        if not np.allclose(computed[name], values, rtol=1e-4, atol=1e-4):
            raise BuildError(f"compiled ops: {name} gives wrong numbers on {device}", log)


def _compute_small_ops(loaded, device, x, bias, taps):
    """The ops of `check` in their own graph and session: dict name -> array."""
    from ops import compiled  # which imports this module

    config = tf.ConfigProto(allow_soft_placement=False)  # a missing GPU kernel is an error
    config.gpu_options.allow_growth = True  # as in tflib's sessions
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        fed = tf.placeholder(tf.float32, x.shape)  # not a constant: TensorFlow evaluates ops on constants with CPU kernels
        with tf.device(device):
            bias_act = compiled.bias_act(loaded, fed, tf.constant(bias, tf.float32), "lrelu", 0.2, 1.5, 2.0, True)
            upfirdn2d = compiled.upfirdn_2d(loaded, fed, np.outer(taps, taps), (taps, taps), (2, 2), (1, 1), ((2, 1), (2, 1)), True)
        return session.run({"bias_act": bias_act, "upfirdn2d": upfirdn2d}, {fed: x})


def library(impl):
    """The loaded library if a call with this `impl` argument is to use it, else None.

    Args:
        impl: None for the choice of this process, "ref" or "cuda".

    Raises:
        ValueError: unknown impl, or "cuda" before a successful set_implementation("cuda").
    """
    if impl not in (None, "ref", "cuda"):
        raise ValueError(f"impl: got {impl!r}, expected None, 'ref' or 'cuda'")
    if impl == "cuda":
        if _state.library is None:
            raise ValueError("impl='cuda': call ops.set_implementation('cuda') first")
        return _state.library
    return _state.library if impl is None and _state.active else None
