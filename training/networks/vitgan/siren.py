"""The generator's patch head: an implicit function of pixel coordinates, modulated by each token (paper, section 3.3).

Letters: M tokens of all images (N·g²), Q pixels of a patch (P²), D width of a token, I O widths in and out.
"""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib.tflib import variables
from training.networks.layers import linear
from training.networks.vitgan.layers import dense


def modulated_linear(x, scales, w, demodulate=False):
    """x·W_n with W_n[i, o] = s_n[i]·W[i, o] for every token n, computed as (x·s_n)·W, without a kernel per token.

    Args:
        x: [M, Q, I], or [1, Q, I] for the same input everywhere.
        scales: s [M, I].
        w: W [I, O].
        demodulate: divide each column of W_n by its norm √(Σ_i W_n² + 1e-8).

    Returns:
        Tensor [M, Q, O].
    """
    y = linear(x * scales[:, tf.newaxis], w)  # [M, Q, O]
    if demodulate:
        y = y * tf.rsqrt(tf.matmul(tf.square(scales), tf.square(w)) + 1e-8)[:, tf.newaxis]
    return y


def siren_head(features, tokens, widths, w0, style="affine", demodulate=False):
    """sin(ω0·(modulated linear + b)) layers, then a linear one (Sitzmann et al. 2020); scopes siren0, siren1, ...

    Args:
        features: E_fou, features of the coordinates [Q, I].
        tokens: y [M, D].
        widths: list of O, one per layer; the last layer has no sine.
        w0: ω0.
        style: "affine": scales are a dense layer of the token, with initial bias 1; "direct": the token itself (widths equal D).
        demodulate: whether the sine layers demodulate.

    Returns:
        Tensor [M, Q, widths[-1]].
    """
    x = features[tf.newaxis]  # [1, Q, I]
    for index, out in enumerate(widths):
        last = index == len(widths) - 1
        width = x.shape.as_list()[-1]
        with tf.variable_scope(f"siren{index}"):
            scales = dense(tokens, width, "style_{}", bias_init=1.0) if style == "affine" else tokens  # [M, I]
            w_gain, b_gain = equalized_gains(width, last, w0)
            limit = _siren_limit(width, index == 0 and not last, w0) / w_gain
            w = variables.get_variable("weight", [width, out], init=variables.uniform(-limit, limit)) * w_gain
            b = variables.get_variable("bias", [out], init=variables.constant(0.0)) * b_gain
            x = modulated_linear(x, scales, w, demodulate and not last) + b  # [M, Q, O]
            x = x if last else tf.sin(w0 * x)
    return x


def equalized_gains(width, last, w0):
    """Gains of a layer's stored weights and biases: an equalized learning rate, which includes ω0 in the sine layers.

    The weights start at 1/I, and ω0 makes the sine 30 times as steep. Stored without gains, the first step of Adam at the learning rate of
    the other layers (0.002) would exceed all the weights: the sine would turn several times within a patch, and the images be noise.

    Args:
        width: I.
        last: the linear layer, without a sine.
        w0: ω0.

    Returns:
        (gain of the weights, gain of the biases).
    """
    slope = 1.0 if last else w0
    return float(1 / (slope * np.sqrt(width))), 1 / slope


def _siren_limit(width, first, w0):
    """Initial weights as used: U(±1/I) in the first sine layer, U(±√(6/I)/ω0) after it."""
    return 1 / width if first else np.sqrt(6 / width) / w0
