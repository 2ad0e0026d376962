"""Conversion between images and patches.

Letters: N batch, S image side, P patch side, g = S / P, C channels.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf


def overlapping_patches(images, patch, pad=True):
    """Windows of side 2P at stride P: every patch and half a patch around it (paper, section 3.2.3).

    A window is four neighbouring cells of a grid, so two concatenations do it, and their gradients are slices.

    Args:
        images: [N, S, S, C].
        patch: P, even.
        pad: add zeros of width P / 2 around the image, so that there are g windows per side instead of g − 1.

    Returns:
        Tensor [N, windows², (2P)²·C], windows row by row, each flattened as (row, column, channel).
    """
    if pad:
        images = tf.pad(images, [[0, 0], [patch // 2] * 2, [patch // 2] * 2, [0, 0]])  # [N, S+P, S+P, C]
    size, channels = images.shape.as_list()[2:]
    cells = size // patch
    x = tf.reshape(images, [-1, cells, patch, cells, patch, channels])  # [N, cells, P, cells, P, C]
    x = tf.concat([x[:, :, :, :-1], x[:, :, :, 1:]], axis=4)  # [N, cells, P, windows, 2P, C]
    x = tf.concat([x[:, :-1], x[:, 1:]], axis=2)  # [N, windows, 2P, windows, 2P, C]
    x = tf.transpose(x, [0, 1, 3, 2, 4, 5])  # [N, windows, windows, 2P, 2P, C]
    return tf.reshape(x, [-1, (cells - 1) ** 2, 4 * patch**2 * channels])


def assemble_patches(patches, grid, patch):
    """Assemble images from patches.

    Args:
        patches: [N·g², P², C], patches row by row, pixels row by row.
        grid: g.
        patch: P.

    Returns:
        Tensor [N, C, S, S].
    """
    channels = patches.shape.as_list()[-1]
    x = tf.reshape(patches, [-1, grid, grid, patch, patch, channels])  # [N, g, g, P, P, C]
    x = tf.transpose(x, [0, 5, 1, 3, 2, 4])  # [N, C, g, P, g, P]
    return tf.reshape(x, [-1, channels, grid * patch, grid * patch])
