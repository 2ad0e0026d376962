"""Convolutions and FIR resampling by a factor of two, features NHWC (Karras et al. 2020).

A convolution of size 1 commutes with the FIR, so its resampled forms run at the lower resolution.
"""

from __future__ import annotations

import contextlib

import numpy as np
import tensorflow.compat.v1 as tf

from ops.upfirdn_2d import upfirdn_2d

FACTOR = 2
_types = [None]  # for the convolutions being built, innermost context last


def resample_filter(taps, gain=1.0):
    """Normalised two-dimensional FIR.

    Args:
        taps: list of numbers (outer product with itself), a 2-D list, or None for the box of the factor.
        gain: factor applied to the filter, which otherwise sums to one.

    Returns:
        float32 array [taps, taps].
    """
    f = np.asarray([1] * FACTOR if taps is None else taps, np.float64)
    if f.ndim == 1:
        f = np.outer(f, f)
    return (f * (gain / np.sum(f))).astype(np.float32)


def upsample_2d(x, taps=None):
    """Twice the size: [N, H, W, C] -> [N, 2H, 2W, C]."""
    f = resample_filter(taps, FACTOR**2)
    p = f.shape[0] - FACTOR
    return upfirdn_2d(x, f, up=FACTOR, pad=((p + 1) // 2 + FACTOR - 1, p // 2))


def downsample_2d(x, taps=None):
    """Half the size: [N, H, W, C] -> [N, H/2, W/2, C]."""
    f = resample_filter(taps)
    p = f.shape[0] - FACTOR
    return upfirdn_2d(x, f, down=FACTOR, pad=((p + 1) // 2, p // 2))


@contextlib.contextmanager
def convolve_in(dtype):
    """Context in which convolutions are built that compute in `dtype` instead of the type of their features; None for the latter."""
    _types.append(dtype)
    try:
        yield
    finally:
        _types.pop()


def _convolve(function, x, w, *arguments):
    """`function` (features, weights, ...) in the type of the context; the result has the type of the features."""
    dtype = _types[-1] or x.dtype
    return tf.cast(function(tf.cast(x, dtype), tf.cast(w, dtype), *arguments), x.dtype)


def conv_2d(x, w):
    """Cross-correlation with same padding: x [N, H, W, I], w [kh, kw, I, O] -> [N, H, W, O]."""
    return _convolve(tf.nn.conv2d, x, w, [1, 1, 1, 1], "SAME")


def upsample_conv_2d(x, w, taps=None):
    """Transposed convolution of stride 2, then the FIR: x [N, H, W, I], w [k, k, I, O] -> [N, 2H, 2W, O]."""
    size = w.shape.as_list()[0]
    if size == 1:
        return upsample_2d(conv_2d(x, w), taps)
    f = resample_filter(taps, FACTOR**2)
    p = (f.shape[0] - FACTOR) - (size - 1)
    n, h, w_in = tf.shape(x)[0], x.shape.as_list()[1], x.shape.as_list()[2]
    out = [FACTOR * (length - 1) + size for length in (h, w_in)]
    kernel = tf.transpose(w[::-1, ::-1], [0, 1, 3, 2])  # [k, k, O, I], flipped: the stored kernel cross-correlates
    shape = tf.stack([n] + out + [w.shape.as_list()[3]])
    y = _convolve(tf.nn.conv2d_transpose, x, kernel, shape, [1, FACTOR, FACTOR, 1], "VALID")
    y.set_shape([None] + out + [w.shape.as_list()[3]])
    return upfirdn_2d(y, f, pad=((p + 1) // 2 + FACTOR - 1, p // 2 + 1))


def conv_downsample_2d(x, w, taps=None):
    """The FIR, then a convolution of stride 2: x [N, H, W, I], w [k, k, I, O] -> [N, H/2, W/2, O]."""
    size = w.shape.as_list()[0]
    if size == 1:
        return conv_2d(downsample_2d(x, taps), w)
    f = resample_filter(taps)
    p = (f.shape[0] - FACTOR) + (size - 1)
    x = upfirdn_2d(x, f, pad=((p + 1) // 2, p // 2))
    return _convolve(tf.nn.conv2d, x, w, [1, FACTOR, FACTOR, 1], "VALID")
