"""Perceptual path length (Karras et al. 2019, "A Style-Based Generator Architecture for GANs", section 4.1)."""

import numpy as np


def slerp(a, b, t):
    """Spherical interpolation of the directions of a and b.

    Args:
        a, b: [..., D], any length but zero.
        t: [..., 1] or a number in [0, 1].

    Returns:
        [..., D] of length 1.
    """

    def unit(vectors):
        return vectors / np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))

    a, b = unit(a), unit(b)
    cosine = (a * b).sum(axis=-1, keepdims=True)
    angle = t * np.arccos(np.clip(cosine, -1, 1))
    across = unit(b - cosine * a)
    return unit(a * np.cos(angle) + across * np.sin(angle))


def percentile_filter(distances):
    """Distances from the 1st to the 99th percentile, both included; percentiles are members of the set, the outer neighbours.

    Args:
        distances: [N].

    Returns:
        (kept distances in their order, lowest kept, highest kept).
    """
    ordered = np.sort(distances)
    last = len(ordered) - 1
    low, high = ordered[last // 100], ordered[-(-last * 99 // 100)]
    return distances[(low <= distances) & (distances <= high)], low, high
