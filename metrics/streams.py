"""Random numbers of the metrics: every draw is a pure function of (seed, purpose, index)."""

import zlib

import numpy as np


def image_stream(seed, purpose, index):
    """np.random.RandomState keyed by the seed, the purpose of the numbers, and the index of the image (or block) they belong to.

    RandomState's numbers are the same in every NumPy version. The key has three words: with the 31 bits of `tflib.numpy_stream`, some of
    50,000 images would share their latents.
    """
    return np.random.RandomState([seed & 0xFFFFFFFF, zlib.crc32(purpose.encode()), index])
