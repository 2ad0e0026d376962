"""Building blocks: equalized weights, dense layers, convolutions, minibatch statistics.

Letters: N batch, F rows, H W height and width, C channels, I O widths in and out.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

import ops
from dnnlib.tflib import variables

HALF_CLAMP = 256.0  # limit of float16 activations (Karras et al. 2020, "Training GANs with limited data", appendix D)


@dataclass
class Context:
    """A call of a network: what the layers need besides their inputs.

    Attributes:
        training: dropout, mixing and batch statistics are on.
        streams: RandomStreams or PerImageStreams, needed by layers that draw random numbers.
        half: 16-bit type for the highest resolutions in mixed precision, else None.
        updates: pairs (variable, its next value) for a training step (moving averages), collected by the layers.
    """

    training: bool = False
    streams: Any = None
    half: Any = None
    updates: list = field(default_factory=list)

    def child(self, name):
        """The same call, with the random streams of that name."""
        return Context(self.training, self.streams.child(name) if self.streams is not None else None, self.half, self.updates)

    @contextlib.contextmanager
    def arithmetic(self, config, r):
        """Context in which scale r is built; its value is the type of the features.

        float16 is for GPUs: the features themselves have 16 bits. bfloat16 is for CPUs: only the convolutions multiply in it. Its eight
        bits are too few for features (gradients of deep networks are off by tens of percent), and other operations gain nothing from it.
        """
        half = self.half if config.half_precision(r) else None
        with ops.convolve_in(tf.bfloat16 if half == tf.bfloat16 else None):
            yield tf.float16 if half == tf.float16 else tf.float32


def weight(shape, gain=1.0, lrmul=1.0, name="weight"):
    """Equalized weights (Karras et al. 2018, section 4.1): stored N(0, 1/lrmul), used times gain · lrmul / sqrt(fan_in).

    Args:
        shape: [..., in, out]; fan_in is the product of all but the last.
    """
    std = gain / np.sqrt(np.prod(shape[:-1]))
    stored = variables.get_variable(name, shape, init=variables.normal(1.0 / lrmul))
    return stored * float(std * lrmul)


def bias(size, lrmul=1.0, name="bias"):
    """Bias vector [size], stored 0, used times lrmul."""
    stored = variables.get_variable(name, [size], init=variables.constant(0.0))
    return stored * lrmul if lrmul != 1 else stored


def linear(x, w):
    """x·W on the last axis: [N, ..., I] -> [N, ..., O]."""
    width, out = w.shape.as_list()
    y = tf.matmul(tf.reshape(x, [-1, width]), w)  # [rows, O]
    return tf.reshape(y, [-1] + x.shape.as_list()[1:-1] + [out])


def dense(x, out, act="linear", lrmul=1.0, suffix=""):
    """Dense layer on the last axis: [N, ..., I] -> [N, ..., O]; weight and bias named with the suffix."""
    w = weight([x.shape.as_list()[-1], out], lrmul=lrmul, name=f"weight{suffix}")
    b = bias(out, lrmul=lrmul, name=f"bias{suffix}")
    return ops.fused_bias_act(linear(x, w), b, act=act)


def flatten_nchw(x):
    """[N, H, W, C] -> [N, C·H·W], channel slowest, as stored weights expect."""
    return tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, int(np.prod(x.shape.as_list()[1:]))])


def conv_weight(x, out, kernel):
    """Equalized convolution weights [k, k, C, O] for features x."""
    return weight([kernel, kernel, x.shape.as_list()[-1], out])


def conv_bias_act(x, out, kernel, down=False, taps=None):
    """Convolution (with downsampling if asked), bias, lrelu: [N, H, W, C] -> [N, H', W', O]."""
    w = conv_weight(x, out, kernel)
    y = ops.conv_downsample_2d(x, w, taps) if down else ops.conv_2d(x, w)
    return bias_act(y, "lrelu")


def bias_act(x, act, scale=None, noise=None):
    """Bias and activation of features [N, H, W, C]; float16 features are clamped, as their largest number is 65504.

    Args:
        x: features.
        act: an activation of ops.
        scale: factors of the channels [N, C], applied first, or None.
        noise: [1 or N, H, W, 1], added next, or None.
    """
    clamp = HALF_CLAMP if x.dtype == tf.float16 else None
    return ops.scaled_bias_act(x, bias(x.shape.as_list()[-1]), scale=scale, noise=noise, act=act, clamp=clamp)


def residual_sum(x, shortcut):
    """(x + shortcut)/√2, which keeps the variance."""
    return ops.scaled_bias_act(x, residual=shortcut, gain=float(np.sqrt(0.5)))


def minibatch_stddev(x, group_size):
    """Append the standard deviation over groups of samples as an additional feature (Karras et al. 2018, section 3).

    Args:
        x: tensor [N, ..., C]; N is a multiple of min(group_size, N). Sample n belongs to group n mod (N / group).

    Returns:
        Tensor [N, ..., C + 1].
    """
    n = tf.shape(x)[0]
    group = tf.minimum(group_size, n)
    tail = x.shape.as_list()[1:]
    y = tf.reshape(x, tf.stack([group, n // group] + tail))  # [G, M, ..., C]
    y = y - tf.reduce_mean(y, axis=0, keepdims=True)  # [G, M, ..., C]
    y = tf.sqrt(tf.reduce_mean(tf.square(y), axis=0) + 1e-8)  # [M, ..., C]
    y = tf.reduce_mean(y, axis=list(range(1, len(tail) + 1)), keepdims=True)  # [M, 1, ..., 1]
    y = tf.tile(y, tf.stack([group] + tail[:-1] + [1]))  # [N, ..., 1]
    y.set_shape([None] + tail[:-1] + [1])
    return tf.concat([x, y], axis=-1)  # [N, ..., C + 1]
