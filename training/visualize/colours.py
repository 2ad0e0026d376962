"""Attention maps as colours: segmentation, soft mixture, blending with the image.

Letters: k latents, H W height and width, C channels.
"""

from __future__ import annotations

import colorsys

import numpy as np


def palette(count):
    """`count` hues evenly spaced in HLS: uint8 [count, 3]."""
    colours = [colorsys.hls_to_rgb(index / count, 0.5, 0.9) for index in range(count)]
    return np.round(np.asarray(colours) * 255).astype(np.uint8)


def segmentation(maps):
    """Each pixel in the colour of its strongest latent.

    Args:
        maps: float [k, H, W].

    Returns:
        uint8 [3, H, W].
    """
    return palette(len(maps))[np.argmax(maps, axis=0)].transpose(2, 0, 1)


def mixture(maps):
    """Each pixel in the mean of the latents' colours, weighted by their attention (which need not sum to 1).

    Args:
        maps: float [k, H, W], non-negative.

    Returns:
        uint8 [3, H, W].
    """
    shares = maps / np.maximum(maps.sum(axis=0), 1e-12)  # [k, H, W]
    return np.round(np.einsum("khw,kc->chw", shares, palette(len(maps)).astype(np.float64))).astype(np.uint8)


def blend(image, colours, alpha):
    """alpha · image + (1 − alpha) · colours.

    Args:
        image: uint8 [C, H, W] with C of 1, 3 or 4; an alpha channel is ignored.
        colours: uint8 [3, H, W].
        alpha: weight of the image.

    Returns:
        uint8 [3, H, W].
    """
    return np.round(alpha * image[:3].astype(np.float64) + (1.0 - alpha) * colours).astype(np.uint8)
