"""The compiled ops as functions on tensors, and their gradients, which are these ops again.

Letters: N batch, P pixels, C channels.
"""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

from ops import implementation

DTYPES = (tf.float32, tf.float16, tf.bfloat16)
ACTIVATIONS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")  # in the order of activation.h
PIECEWISE_LINEAR = ("linear", "relu", "lrelu")
MAX_TAPS = 32


def channels_last(x, axis):
    """Whether `axis` of x is the last one; None if it is neither that nor axis 1, the two layouts the kernels know."""
    rank = x.shape.ndims
    if rank is None or rank < 2:
        return None
    axis = axis % rank
    return True if axis == rank - 1 else False if axis == 1 else None


def can_bias_act(x, act, alpha, last, impl):
    """Whether bias_act supports this and is worth it: TensorFlow's own smooth functions are faster on the CPU. Derivatives of lrelu are
    evaluated at its output, which has the sign of the input only if alpha is not negative."""
    if x.dtype not in DTYPES or last is None or alpha < 0:
        return False
    return act in PIECEWISE_LINEAR or implementation.on_gpu() or impl == "cuda"


def bias_act(library, x, b, act, alpha, gain, clamp, last, scale=None, residual=None, noise=None):
    """clamp(gain · act(x · scale + residual + noise + b)) in one pass.

    Args:
        library: module of tf.load_op_library.
        x: tensor [N, ..., C] (last) or [N, C, ...], a dtype of DTYPES.
        b: tensor [C] or None.
        act, alpha, gain, clamp: as in fused_bias_act, with defaults resolved; clamp may be None.
        last: layout of x.
        scale: tensor [N, C] or None; like the two below, None unless act is in PIECEWISE_LINEAR.
        residual: tensor like x, or None.
        noise: tensor [1 or N, ...] of P values per sample, or None.

    Returns:
        Tensor like x, differentiable up to order 8.
    """
    none = tf.zeros([0], x.dtype)
    terms = [none if term is None else tf.cast(term, x.dtype) for term in (scale, residual, noise, b)]
    return library.ganformer_bias_act(x, *terms, none, act=ACTIVATIONS.index(act), order=0, alpha=float(alpha), gain=float(gain),
                                      clamp=-1.0 if clamp is None else float(clamp), channels_last=last)


def _derivative(op, factor, bias, ref, order):
    """The op itself with the attributes of another one: factor · gain · act^(order) at ref."""
    none = tf.zeros([0], factor.dtype)
    attributes = {name: op.get_attr(name) for name in ("act", "alpha", "gain", "clamp", "channels_last")}
    return implementation.library("cuda").ganformer_bias_act(factor, none, none, none, bias, ref, order=order, **attributes)


def _first_derivative(op, dy, smooth):
    """dy times the derivative with respect to the activation's input. The point of evaluation stays in memory until the backward pass:
    the output where it suffices, since the next layer keeps it anyway; nothing for a linear activation."""
    none = tf.zeros([0], dy.dtype)
    if smooth:
        return _derivative(op, dy, op.inputs[4], op.inputs[0], 1)
    if ACTIVATIONS[op.get_attr("act")] != "linear" or op.get_attr("clamp") >= 0:
        return _derivative(op, dy, none, op.outputs[0], 1)
    return dy if op.get_attr("gain") == 1 else _derivative(op, dy, none, none, 1)


def _has(tensor):
    """Whether an input is given: an absent one has shape [0]."""
    return tensor.shape.ndims != 1 or tensor.shape.num_elements() != 0


def _noise_gradient(du, noise, channel):
    """Sum over the channels, and over the samples if the noise has one row for all; the number of rows may be known only at run time."""
    rows = noise.shape.as_list()[0]
    if rows is not None:
        return _sum(du, [0, channel] if rows == 1 else [channel], noise)
    total, rows = tf.reduce_sum(tf.cast(du, tf.float32), axis=channel), tf.shape(noise)[0]
    parts = tf.concat([[tf.shape(total)[0] // tf.maximum(rows, 1), rows], tf.shape(total)[1:]], axis=0)
    return _sum(tf.reshape(total, parts), [0], noise)


def _sum(x, axes, like):
    """Sum in float32, in the shape and dtype of `like`: float16 would lose the small terms of a sum over a batch of pixels. (A sum
    beyond float16 becomes infinite, which loss scaling detects.)"""
    total = tf.reduce_sum(tf.cast(x, tf.float32), axis=axes)
    return tf.cast(tf.reshape(total, tf.shape(like)), like.dtype)


@tf.RegisterGradient("GanformerBiasAct")
def _bias_act_gradient(op, dy):
    x, scale, residual, noise, bias, ref = op.inputs
    last, rank, order = op.get_attr("channels_last"), x.shape.ndims, op.get_attr("order")
    channel = rank - 1 if last else 1
    pixels = [axis for axis in range(1, rank) if axis != channel]
    smooth = ACTIVATIONS[op.get_attr("act")] not in PIECEWISE_LINEAR
    if order > 0:
        d_ref = _derivative(op, dy * x, bias, ref, order + 1) if smooth else None
        d_bias = _sum(d_ref, [0] + pixels, bias) if _has(bias) else None
        return _derivative(op, dy, bias, ref, order), None, None, None, d_bias, d_ref
    du = _first_derivative(op, dy, smooth)
    d_bias = _sum(du, [0] + pixels, bias) if _has(bias) else None
    d_residual = du if _has(residual) else None
    d_noise = _noise_gradient(du, noise, channel) if _has(noise) else None
    if not _has(scale):
        return du, None, d_residual, d_noise, d_bias, None
    dx = bias_act(implementation.library("cuda"), du, None, "linear", 0, 1, None, last, scale)
    return dx, _sum(du * x, pixels, scale), d_residual, d_noise, d_bias, None


def can_upfirdn(x, f):
    """Whether the kernels support this: their gradient needs a static image size."""
    return x.dtype in DTYPES and None not in x.shape.as_list()[1:] and max(f.shape) <= MAX_TAPS


def upfirdn_2d(library, x, f, separated, up, down, pad, last):
    """upfirdn_2d with resolved arguments: up, down (vertical, horizontal), pad ((top, bottom), (left, right)).

    Args:
        library: module of tf.load_op_library.
        x: tensor [N, H, W, C] (last) or [N, C, H, W] of static H, W, C.
        f: array [fh, fw].
        separated: (rows, columns) with f = outer(rows, columns), or None.

    Returns:
        Tensor, differentiable to any order.
    """
    fy, fx = (f, np.zeros(0)) if separated is None else separated
    return library.ganformer_upfirdn2d(x, tf.constant(fy, tf.float32), tf.constant(fx, tf.float32), up=list(up), down=list(down),
                                       pad=[int(value) for ends in pad for value in ends], flip=False, channels_last=last)


@tf.RegisterGradient("GanformerUpfirdn2d")
def _upfirdn_gradient(op, dy):
    """The same op with up and down swapped and the filter flipped (docs/cuda.md, "upfirdn2d")."""
    x, fy, fx = op.inputs
    up, down, pad, last = (op.get_attr(name) for name in ("up", "down", "pad", "channels_last"))
    axis = 1 if last else 2
    taps = fy.shape.as_list() if fy.shape.ndims == 2 else [fy.shape.as_list()[0], fx.shape.as_list()[0]]
    sizes = x.shape.as_list()[axis:axis + 2]
    out_sizes = op.outputs[0].shape.as_list()[axis:axis + 2]
    turned = []
    for size, out, length, u, d, before in zip(sizes, out_sizes, taps, up, down, pad[::2]):
        turned += [length - before - 1, size * u - out * d + before - u + 1]
    dx = implementation.library("cuda").ganformer_upfirdn2d(dy, fy, fx, up=down, down=up, pad=turned, flip=not op.get_attr("flip"),
                                                            channels_last=last)
    return dx, None, None
