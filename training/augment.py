"""Differentiable augmentation of what the discriminator sees (DiffAugment, Zhao et al. 2020): color, translation, cutout.

Random numbers are drawn per image, and every operation is applied to each image with a given probability. The operations take
[N, H, W, C] with values in [-1, 1] and are differentiable with respect to the image; the random numbers are arguments.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

KINDS = ("none", "diffaug")


def augment(images, config, streams):
    """Augment a batch.

    Args:
        images: [N, C, H, W] in [-1, 1]; not clipped afterwards.
        config: training.config.AugmentConfig.
        streams: RandomStreams.

    Returns:
        Tensor like images; the images themselves for kind "none".

    Raises:
        ValueError: the kind is unknown.
    """
    if config.kind not in KINDS:
        raise ValueError(f"augmentation: got {config.kind!r}, expected one of {', '.join(KINDS)}")
    if config.kind == "none":
        return images
    x = tf.transpose(images, [0, 2, 3, 1])  # [N, H, W, C]
    x.set_shape([None, *images.shape.as_list()[2:], images.shape.as_list()[1]])
    for name, operation in operations(x, config, streams):
        applied = streams.uniform(f"{name}/gate", [tf.shape(x)[0]]) < config.probability
        x = where_image(applied, operation(x), x)
    return tf.transpose(x, [0, 3, 1, 2])


def operations(x, config, streams):
    """The operations in their order with their draws.

    Args:
        x: [N, H, W, C], for its size.
        config: training.config.AugmentConfig.
        streams: RandomStreams.

    Returns:
        list of (name, function [N, H, W, C] -> [N, H, W, C]).
    """
    height, width = x.shape.as_list()[1:3]
    count = [tf.shape(x)[0]]

    def integers(name, low, high):
        """Uniform over low, ..., high."""
        drawn = tf.cast(tf.floor(streams.uniform(name, count) * (high - low + 1)), tf.int32)
        return low + tf.minimum(drawn, high - low)

    amounts = {name: streams.uniform(name, count) for name in ("brightness", "saturation", "contrast")}
    shifts = [integers(f"translation/{axis}", -share(side, config.translation), share(side, config.translation))
              for axis, side in (("rows", height), ("columns", width))]  # fmt: skip
    sizes = [share(side, config.cutout) for side in (height, width)]
    places = [integers(f"cutout/{axis}", 0, side - size % 2)
              for axis, side, size in (("rows", height, sizes[0]), ("columns", width, sizes[1]))]  # fmt: skip
    return [
        ("brightness", lambda x: brightness(x, amounts["brightness"])),
        ("saturation", lambda x: saturation(x, amounts["saturation"])),
        ("contrast", lambda x: contrast(x, amounts["contrast"])),
        ("translation", lambda x: translate(x, *shifts)),
        ("cutout", lambda x: x * cutout_mask(x, *places, *sizes)),
    ]


def share(side, ratio):
    """A fraction of a side in whole pixels: ⌊side·ratio + ½⌋."""
    return int(side * ratio + 0.5)


def where_image(applied, changed, x):
    """`changed` where `applied` [N] is true, else x."""
    shape = [-1] + [1] * (x.shape.ndims - 1)
    return tf.where_v2(tf.reshape(applied, shape), changed, x)


def brightness(x, u):
    """x + (u − ½), u [N] in [0, 1)."""
    return x + (_per_image(u) - 0.5)


def saturation(x, u):
    """(x − m)·2u + m with the mean m over the channels of each pixel."""
    mean = tf.reduce_mean(x, axis=3, keepdims=True)  # [N, H, W, 1]
    return (x - mean) * (2 * _per_image(u)) + mean


def contrast(x, u):
    """(x − m)·(u + ½) + m with the mean m over the whole image."""
    mean = tf.reduce_mean(x, axis=[1, 2, 3], keepdims=True)  # [N, 1, 1, 1]
    return (x - mean) * (_per_image(u) + 0.5) + mean


def translate(x, rows, columns):
    """out[i, j] = in[i + rows, j + columns], zero outside the image.

    Args:
        x: [N, H, W, C].
        rows, columns: int32 [N].
    """
    count, (height, width) = tf.shape(x)[0], x.shape.as_list()[1:3]
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])  # [N, H+2, W+2, C], a border of zeros to read from
    i = tf.clip_by_value(tf.range(1, height + 1) + rows[:, tf.newaxis], 0, height + 1)  # [N, H]
    j = tf.clip_by_value(tf.range(1, width + 1) + columns[:, tf.newaxis], 0, width + 1)  # [N, W]
    n = tf.range(count)[:, tf.newaxis, tf.newaxis]  # [N, 1, 1]
    zeros = tf.zeros(tf.stack([count, height, width]), tf.int32)
    index = tf.stack([n + zeros, i[:, :, tf.newaxis] + zeros, j[:, tf.newaxis] + zeros], axis=-1)  # [N, H, W, 3]
    return tf.gather_nd(padded, index)


def cutout_mask(x, rows, columns, height, width):
    """0 in a rectangle of each image, which may be partly outside, 1 elsewhere.

    Args:
        x: [N, H, W, C], for its size and type.
        rows, columns: int32 [N], the rectangle's centre.
        height, width: size of the rectangle.

    Returns:
        Tensor [N, H, W, 1].
    """
    in_rows = _in_range(x.shape.as_list()[1], rows, height)[:, :, tf.newaxis]  # [N, H, 1]
    in_columns = _in_range(x.shape.as_list()[2], columns, width)[:, tf.newaxis]  # [N, 1, W]
    return 1 - tf.cast(tf.logical_and(in_rows, in_columns), x.dtype)[..., tf.newaxis]


def _in_range(side, centre, size):
    """Whether a position lies in clamp(centre − size // 2 + i), i < size: [N, side]. A side beyond the border leaves its border row."""
    low = tf.clip_by_value(centre - size // 2, 0, side - 1)[:, tf.newaxis]  # [N, 1]
    high = tf.clip_by_value(centre - size // 2 + size - 1, 0, side - 1)[:, tf.newaxis]  # [N, 1]
    positions = tf.range(side)
    inside = tf.logical_and(positions >= low, positions <= high)
    return inside if size else tf.zeros_like(inside)


def _per_image(u):
    """[N] -> [N, 1, 1, 1]."""
    return u[:, tf.newaxis, tf.newaxis, tf.newaxis]
