"""The two ways of resizing images for a feature network; a result names the one that was used.

`tf1`: bilinear as TensorFlow 1 does it (no half-pixel centres, no antialiasing), the rule of the published FID numbers; an op of the
networks' graphs.
`clean`: Pillow's antialiased bicubic on floating-point channels (Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in
GAN Evaluation").
"""

import concurrent.futures

import numpy as np
from PIL import Image

from dnnlib.util import usable_cores


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
            resized[index, :, :, channel] = np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC))

    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as threads:  # Pillow computes outside the interpreter's lock
        list(threads.map(resize, range(len(images))))
    return np.clip(resized, 0, 255, out=resized)
