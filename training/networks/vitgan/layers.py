"""Layers that the ViTGAN generator and discriminator share.

Letters: N batch, T tokens, D width of a token, I O widths in and out.
"""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib.tflib import variables
from training.networks.layers import linear, weight

EPSILON = 1e-5
# Half-widths of the initial distributions of Fourier features (authors' release).
POSITION_KERNEL = np.sqrt(9 / 2)
POSITION_BIAS = 1 / np.sqrt(2)


def dense(x, out, name="{}", weights=weight, bias_init=0.0):
    """Dense layer with an equalised learning rate: y = x·(K / √I) + b.

    Args:
        x: [N, ..., I].
        out: O.
        name: pattern of the variables' names; "q_{}" gives q_weight and q_bias.
        weights: function (shape, name=) -> weights: equalized only, or spectrally normalized as well.
        bias_init: initial value of the bias.

    Returns:
        Tensor [N, ..., O].
    """
    w = weights([x.shape.as_list()[-1], out], name=name.format("weight"))
    b = variables.get_variable(name.format("bias"), [out], init=variables.constant(bias_init))
    return linear(x, w) + b


def standardize(x):
    """(x − μ) / √(σ² + ε) over the last axis, with the population variance."""
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    return centred * tf.rsqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True) + EPSILON)


def layer_norm(x, name):
    """Layer normalisation with gain and bias, in scope `name`: [N, T, D] -> [N, T, D]."""
    width = x.shape.as_list()[-1]
    with tf.variable_scope(name):
        gain = variables.get_variable("gain", [width], init=variables.constant(1.0))
        bias = variables.get_variable("bias", [width], init=variables.constant(0.0))
    return standardize(x) * gain + bias


def self_modulated_norm(h, w, name):
    """Self-modulated layer normalisation (paper, eq. 15): γ(w) ⊙ (h − μ) / σ + β(w); only here does the latent enter the network.

    Args:
        h: tokens [N, T, D].
        w: intermediate latent [N, any].
        name: scope.

    Returns:
        Tensor [N, T, D].
    """
    width = h.shape.as_list()[-1]
    with tf.variable_scope(name):
        gamma = dense(w, width, "gamma_{}", bias_init=1.0)  # [N, D]
        beta = dense(w, width, "beta_{}")  # [N, D]
    return standardize(h) * gamma[:, tf.newaxis] + beta[:, tf.newaxis]


def gelu(x):
    """x·Φ(x), Φ the normal distribution function (Hendrycks & Gimpel 2016; exact form)."""
    return 0.5 * x * (1 + tf.math.erf(x / np.sqrt(2).astype(np.float32)))


def mlp(x, ratio, weights=weight):
    """Dense to ratio·D, GELU, dense to D, in scope mlp: [N, T, D] -> [N, T, D]."""
    width = x.shape.as_list()[-1]
    with tf.variable_scope("mlp"):
        x = gelu(dense(x, ratio * width, "{}0", weights))  # [N, T, ratio·D]
        return dense(x, width, "{}1", weights)  # [N, T, D]


def coordinates(side):
    """Cells of a square grid, row by row, as (x, y) from −1 to 1 with both ends: [side², 2], x along the columns."""
    line = np.linspace(-1, 1, side)
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def fourier_features(side, width):
    """sin(C·K + b) of the coordinates C of a grid, trainable K and b (Anokhin et al. 2021): [side², width].

    K and b have no equalized gain, since their initial sizes are frequencies.
    """
    kernel = variables.get_variable("weight", [2, width], init=variables.uniform(-POSITION_KERNEL, POSITION_KERNEL))
    bias = variables.get_variable("bias", [width], init=variables.uniform(-POSITION_BIAS, POSITION_BIAS))
    return tf.sin(tf.matmul(tf.constant(coordinates(side), tf.float32), kernel) + bias)


def position_embedding(side, width, kind):
    """E_pos of a grid, in scope pos.

    Args:
        side: cells along a side.
        width: D.
        kind: "fourier" (paper) or "table", the sine of a free table.

    Returns:
        Tensor [side², D].
    """
    with tf.variable_scope("pos"):
        if kind == "fourier":
            return fourier_features(side, width)
        return tf.sin(variables.get_variable("table", [side**2, width], init=variables.normal()))
