"""Images for viewing: conversion to bytes, grids, cropping of the padding."""

from __future__ import annotations

import math

import numpy as np
import PIL.Image

from dnnlib import atomic_output
from training.manifest import picture_box

SAMPLES_FILE = "samples.json"  # in a folder of generate.py: how its pictures were made, and their names
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name of images with so many channels


def to_uint8(images):
    """Convert images in [-1, 1] to bytes: floor(x * 127.5 + 128), clipped to [0, 255].

    Args:
        images: float array of any shape.

    Returns:
        uint8 array of that shape.
    """
    scaled = np.asarray(images, np.float32) * np.float32(127.5)
    scaled += np.float32(128)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)  # the conversion truncates, which is floor for numbers from 0 on


def crop_padding(images, ratio):
    """Crop the rows with which images of ratio height / width < 1 are padded to squares.

    Args:
        images: array [..., H, W]; networks for wide images leave out (W - H) / 2 rows above and below.
        ratio: height / width of the image inside the padding, at most 1.

    Returns:
        View [..., H', W], the rows of `training.manifest.picture_box`.
    """
    height, width = images.shape[-2:]
    _, top, _, bottom = picture_box(width, ratio)
    left_out = (width - height) // 2
    return images[..., max(top - left_out, 0) : bottom - left_out, :]


def grid_shape(resolution):
    """Columns and rows of a sample grid: about 1024 pixels wide, 2:1 at most."""
    return min(max(1024 // resolution, 4), 8), min(max(640 // resolution, 3), 5)


def make_grid(images, columns):
    """Arrange images in a grid, row by row; the remaining cells are black.

    Args:
        images: uint8 [N, C, H, W].
        columns: images per row.

    Returns:
        uint8 [C, rows * H, columns * W].
    """
    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    cells = np.zeros([rows * columns, channels, height, width], np.uint8)
    cells[:count] = images
    cells = cells.reshape([rows, columns, channels, height, width])
    return cells.transpose(2, 0, 3, 1, 4).reshape([channels, rows * height, columns * width])


def to_pil(image):
    """Convert uint8 [C, H, W], C in MODES, to a PIL image."""
    if image.shape[0] == 1:
        return PIL.Image.fromarray(image[0])
    return PIL.Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))


def from_pil(image):
    """Convert a PIL image to uint8 [C, H, W], as a view."""
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def save_png(image, path):
    """Write uint8 [C, H, W] as a PNG file, atomically."""
    with atomic_output(path) as file:
        to_pil(image).save(file, format="PNG")
