"""Bias, activation, gain and clamp in one function: y = clamp(gain · act(x + b))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np
import tensorflow.compat.v1 as tf

from ops import compiled, implementation


@dataclass(frozen=True)
class Activation:
    """One activation: its reference function (x, alpha) -> y, default alpha and default gain."""

    func: Callable
    alpha: float = 0.0
    gain: float = 1.0


ACTIVATIONS = {
    "linear": Activation(lambda x, alpha: x),
    "relu": Activation(lambda x, alpha: tf.nn.relu(x), gain=np.sqrt(2)),
    "lrelu": Activation(lambda x, alpha: tf.nn.leaky_relu(x, alpha), alpha=0.2, gain=np.sqrt(2)),
    "tanh": Activation(lambda x, alpha: tf.nn.tanh(x)),
    "sigmoid": Activation(lambda x, alpha: tf.nn.sigmoid(x)),
    "elu": Activation(lambda x, alpha: tf.nn.elu(x)),
    "selu": Activation(lambda x, alpha: tf.nn.selu(x)),
    "softplus": Activation(lambda x, alpha: tf.nn.softplus(x)),
    "swish": Activation(lambda x, alpha: tf.nn.sigmoid(x) * x, gain=np.sqrt(2)),
}


def spread(term, x):
    """A term of a sum or product with x, in the type of x. For float16 it gets the shape of x before its type, so that its gradient is
    summed over the pixels in its own type: a sum in float16 loses its small terms."""
    return tf.cast(tf.broadcast_to(term, tf.shape(x)) if x.dtype == tf.float16 else term, x.dtype)


def fused_bias_act(x, b=None, act="linear", gain=None, clamp=None, axis=-1, alpha=None, impl=None):
    """Add a bias along one axis, apply an activation, scale, clamp.

    Args:
        x: tensor of any shape.
        b: tensor [x.shape[axis]], or None.
        act: a key of ACTIVATIONS.
        gain: factor after the activation; None for the default of the activation.
        clamp: limit of the absolute value of the result, or None.
        axis: the channel axis.
        alpha: slope of lrelu for negative values; None for 0.2.
        impl: "cuda" for the compiled op, "ref" for TensorFlow's own ops, None for the choice made by ops.set_implementation.

    Returns:
        Tensor like x, differentiable to any order (compiled: an activation that is not piecewise linear to order 8).
    """
    spec = ACTIVATIONS[act]
    gain = spec.gain if gain is None else gain
    alpha = spec.alpha if alpha is None else alpha
    library, last = implementation.library(impl), compiled.channels_last(x, axis)
    if library is not None and compiled.can_bias_act(x, act, alpha, last, impl):
        return compiled.bias_act(library, x, b, act, alpha, gain, clamp, last)
    if b is not None:
        shape = [1] * x.shape.ndims
        shape[axis] = -1
        x = x + spread(tf.reshape(b, shape), x)
    y = spec.func(x, alpha)
    if gain != 1:
        y = y * tf.cast(gain, x.dtype)
    if clamp is not None:
        y = tf.clip_by_value(y, -clamp, clamp)
    return y
