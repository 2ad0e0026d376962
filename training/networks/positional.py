"""Positional encodings of grids and of latents (GANformer, section 3.1).

Letters: H W grid height and width, D directions, P width of the encoding.
"""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib.tflib import variables

WAVELENGTH = 10000.0


def grid_positions(height, width, dim, pos_type, directions_num, init):
    """Encoding of every cell of a grid, row by row.

    Args:
        height, width: size of the grid.
        dim: P.
        pos_type: sinus (fixed), linear, trainable (rows and columns) or trainable2d (every cell).
        directions_num: D, for sinus and linear.
        init: "uniform" or "normal", for the trainable kinds.

    Returns:
        Tensor [H·W, P].
    """
    if pos_type == "sinus":
        return tf.constant(_sinus(height, width, dim, directions_num).reshape(height * width, dim), tf.float32)
    if pos_type == "linear":
        emb = variables.get_variable("emb", [directions_num, dim // directions_num], init=initializer(init))
        lines = tf.constant(_projections(height, width, directions_num), tf.float32)  # [H, W, D]
        return tf.reshape(lines[..., tf.newaxis] * emb, [height * width, dim])
    if pos_type == "trainable":
        columns = variables.get_variable("x_emb", [width, dim // 2], init=initializer(init))
        rows = variables.get_variable("y_emb", [height, dim // 2], init=initializer(init))
        columns = tf.tile(columns[tf.newaxis], [height, 1, 1])  # [H, W, P/2]
        rows = tf.tile(rows[:, tf.newaxis], [1, width, 1])  # [H, W, P/2]
        return tf.reshape(tf.concat([columns, rows], axis=-1), [height * width, dim])
    emb = variables.get_variable("emb", [height, width, dim], init=initializer(init))
    return tf.reshape(emb, [height * width, dim])


def pyramid_positions(config):
    """Encodings of the grids at all scales, in scopes pos_emb<r>.

    Args:
        config: GeneratorConfig or DiscriminatorConfig.

    Returns:
        dict r -> tensor [H·W, P]; empty for a network without attention, which would not use them. Trainable kinds are there at every
        scale, as in published snapshots, fixed ones where they are used.
    """
    if not (config.transformer or config.img2img):
        return {}
    grids = {}
    for r in range(config.resolution_log2 + 1):
        if config.pos_type == "sinus" and not config.any_attention(r):
            continue  # a constant, which no snapshot stores: at 1024 pixels it would make the graph larger by 134 MB
        with tf.variable_scope(f"pos_emb{r}"):
            height, width = config.grid(r)
            grids[r] = grid_positions(
                max(height, 1), width, config.position_dim, config.pos_type, config.pos_directions_num, config.pos_init
            )
    return grids


def latent_positions(count, dim, init):
    """Trainable encodings of the latents: [k, P], scope ltnt_emb."""
    with tf.variable_scope("ltnt_emb"):
        return variables.get_variable("emb", [count, dim], init=initializer(init))


def initializer(name):
    """Initial distribution of trainable encodings: uniform [0, 1) or standard normal."""
    return {"uniform": variables.uniform(), "normal": variables.normal()}[name]


def _coordinates(height, width):
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    return x, y  # [H, W] each; x along the width


def _projections(height, width, directions_num):
    """x cos θ + y sin θ for the angles θ = d·π/D: [H, W, D]."""
    x, y = _coordinates(height, width)
    theta = np.arange(directions_num) * np.pi / directions_num  # [D]
    return x[..., np.newaxis] * np.cos(theta) + y[..., np.newaxis] * np.sin(theta)


def _sinus(height, width, dim, directions_num):
    if directions_num == 2:
        frequency = WAVELENGTH ** (4 * np.arange(dim // 4) / dim)  # [P/4]
        x, y = [c[..., np.newaxis] / frequency for c in _coordinates(height, width)]  # [H, W, P/4]
        return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=-1)  # [H, W, P]
    frequency = WAVELENGTH ** (2 * directions_num * np.arange(dim // (2 * directions_num)) / dim)  # [P/2D]
    angle = _projections(height, width, directions_num)[..., np.newaxis] / frequency  # [H, W, D, P/2D]
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1).reshape(height, width, dim)  # [H, W, P]
