"""The two ways images are brought to a feature network's size; a result names the one that was used.

`tf1`: bilinear as TensorFlow 1 does it (no half-pixel centres, no antialiasing), the rule of the published FID numbers. Inside the
graphs the op does this; the function here is its reference twin, equal bit by bit.
`clean`: Pillow's antialiased bicubic on floating-point channels (Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in
GAN Evaluation").
"""

import concurrent.futures
import os

import numpy as np
from PIL import Image


def _tf1_positions(size, target):
    """Lower and upper source index and the weight of the upper one, for each target pixel; all in float32 as the op computes."""
    source = np.arange(target, dtype=np.float32) * (np.float32(size) / np.float32(target))
    lower = np.floor(source).astype(np.int64)
    return lower, np.minimum(lower + 1, size - 1), source - lower.astype(np.float32)


def tf1_bilinear(images, height, width):
    """TensorFlow 1's bilinear resize (align_corners=False).

    Args:
        images: [N, H, W, C], uint8 or float32.
        height, width: target size in pixels.

    Returns:
        float32 [N, height, width, C].
    """
    images = np.asarray(images, np.float32)
    top, bottom, down = _tf1_positions(images.shape[1], height)
    left, right, across = _tf1_positions(images.shape[2], width)
    rows = images[:, :, left] + (images[:, :, right] - images[:, :, left]) * across[:, None]  # [N, H, width, C]
    return rows[:, top] + (rows[:, bottom] - rows[:, top]) * down[:, None, None]  # [N, height, width, C]


def clean_bicubic(images, height, width):
    """Pillow's bicubic resize of each channel in floating point, clipped to 0..255, not rounded.

    Args:
        images: [N, H, W, C], uint8 or float32 with values 0..255.
        height, width: target size in pixels.

    Returns:
        float32 [N, height, width, C].
    """
    resized = np.empty((len(images), height, width, images.shape[3]), np.float32)

    def resize(index):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(images[index, :, :, channel], np.float32))
            resized[index, :, :, channel] = np.asarray(plane.resize((width, height), Image.BICUBIC))

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow computes outside the interpreter's lock
        list(threads.map(resize, range(len(images))))
    return np.clip(resized, 0, 255, out=resized)
