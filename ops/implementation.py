"""Which implementation the ops use: the compiled library or the reference twins in TensorFlow."""

from __future__ import annotations

import os
import sys

import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from ops import builder, toolchain

CHOICES = ("auto", "cuda", "ref")


class _State:
    """The process's choice: TensorFlow registers ops once per process, so there is one library at most."""

    library = None      # the module of tf.load_op_library
    path = None
    active = False      # ops use the library unless told otherwise
    on_gpu = False


_state = _State()


def set_implementation(choice):
    """Choose the implementation of fused_bias_act, scaled_bias_act and upfirdn_2d for what is built from now on (`--ops`).

    Call it after tflib.init_tf, which decides whether there is a GPU.

    Args:
        choice: "ref" for the reference twins; "cuda" for the compiled library, built now if need be, with GPU kernels where TensorFlow
            uses a GPU (on the CPU its CPU kernels); "auto" for the library where it pays: built on a GPU, on the CPU used where
            it has been built before. docs/cuda.md has the policy.

    Returns:
        A line for the run's log: what will be used.

    Raises:
        UserError: choice unknown, or "cuda" and the library cannot be built or loaded.
    """
    if choice not in CHOICES:
        raise UserError(f"--ops {choice}: accepted are {', '.join(CHOICES)}")
    _state.active = False
    if choice == "ref":
        return description()
    _state.on_gpu = tflib.devices()[0].startswith("/gpu")
    try:
        _state.active = _load(_state.on_gpu, may_build=_state.on_gpu or choice == "cuda")
    except toolchain.BuildError as error:
        if choice == "cuda":
            raise UserError(f"--ops cuda: {error}") from None
        print(f"warning: compiled ops are not available, using the slower reference: {error}", file=sys.stderr)
    return description()


def on_gpu():
    """Whether TensorFlow used a GPU when the implementation was chosen."""
    return _state.on_gpu


def description():
    """What is in use, in words."""
    return f"compiled ops: {_state.path}" if _state.active else "compiled ops: none, reference implementation"


def _load(with_gpu, may_build):
    """Load the library, once. Returns whether there is one."""
    if _state.library is not None:
        return True
    try:
        what = builder.plan(cuda=with_gpu or bool(os.environ.get("GANFORMER_CUDA_ARCH")))
    except toolchain.BuildError:
        if may_build:
            raise
        return False
    if not os.path.exists(what.path):
        if not may_build:
            return False
        print(f"compiling ops into {what.path} (once; log: {what.log})", file=sys.stderr)
    path = builder.build(what)
    try:
        _state.library = tf.load_op_library(path)
    except (tf.errors.OpError, OSError) as error:
        raise toolchain.BuildError(f"TensorFlow cannot load {path} (delete it to build it anew): {error}", what.log) from None
    _state.path = path
    return True


def library(impl):
    """The loaded library if a call with this `impl` argument is to use it, else None.

    Args:
        impl: None for the process's choice, "ref" or "cuda".

    Raises:
        ValueError: impl unknown, or "cuda" before set_implementation("cuda") succeeded.
    """
    if impl not in (None, "ref", "cuda"):
        raise ValueError(f"impl: got {impl!r}, expected None, 'ref' or 'cuda'")
    if impl == "cuda":
        if _state.library is None:
            raise ValueError("impl='cuda': call ops.set_implementation('cuda') first")
        return _state.library
    return _state.library if impl is None and _state.active else None
