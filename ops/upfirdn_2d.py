"""Upsample, pad, filter and downsample images: the resampling primitive of StyleGAN2 (Karras et al. 2020, section 3).

Letters: N batch, H W height and width, C channels.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from ops import compiled, implementation

SEPARABLE_TAPS = 36  # rank-1 filters with more taps than this run as two one-dimensional passes


def upfirdn_2d(x, f, up=1, down=1, pad=(0, 0), data_format="NHWC", impl=None):
    """Insert up − 1 zeros after each sample, pad (negative pads crop), convolve with the FIR f, keep every down-th sample.

    Args:
        x: tensor [N, H, W, C], or [N, C, H, W] with data_format "NCHW".
        f: NumPy array [fh, fw]; a true convolution (f is flipped relative to cross-correlation).
        up, down: int, or (vertical, horizontal).
        pad: (before, after) for both axes, or ((top, bottom), (left, right)), counted after zero insertion.
        data_format: layout of x.
        impl: "cuda" for the compiled op, "ref" for TensorFlow's own ops, None for the choice made by ops.set_implementation.

    Returns:
        Tensor with height (H·up + top + bottom − fh) // down + 1, likewise the width. Differentiable to any order.
    """
    f = np.asarray(f, np.float32)
    up, down = [(v, v) if isinstance(v, int) else tuple(v) for v in (up, down)]
    pad = (tuple(pad), tuple(pad)) if isinstance(pad[0], int) else tuple(tuple(p) for p in pad)
    separable = np.linalg.matrix_rank(f) == 1
    library = implementation.library(impl)
    if library is not None and compiled.can_upfirdn(x, f):
        return compiled.upfirdn_2d(library, x, f, _separate(f) if separable else None, up, down, pad, data_format == "NHWC")
    if data_format == "NCHW":
        return _to_nchw(upfirdn_2d(_to_nhwc(x), f, up, down, pad, impl="ref"))
    if f.size > SEPARABLE_TAPS and min(f.shape) > 1 and separable:
        rows, columns = _separate(f)
        x = _single_pass(x, rows[:, np.newaxis], (up[0], 1), (down[0], 1), (pad[0], (0, 0)))
        return _single_pass(x, columns[np.newaxis, :], (1, up[1]), (1, down[1]), ((0, 0), pad[1]))
    return _single_pass(x, f, up, down, pad)


def _separate(f):
    """Factors of a rank-1 filter: f = outer(rows, columns)."""
    u, s, v = np.linalg.svd(f.astype(np.float64))
    return u[:, 0] * np.sqrt(s[0]), v[0] * np.sqrt(s[0])


def _to_nhwc(x):
    return tf.transpose(x, [0, 2, 3, 1])


def _to_nchw(x):
    return tf.transpose(x, [0, 3, 1, 2])


def _single_pass(x, f, up, down, pad):
    if up == (1, 1):
        return _filter_down(x, f, down, pad)
    if up[0] == up[1] and down == (1, 1):
        return _filter_up(x, f, up[0], pad)
    x = _insert_zeros(x, up)
    return _filter_down(x, f, down, pad)


def _insert_zeros(x, up):
    n, h, w, c = _sizes(x)
    x = tf.reshape(x, [n, h, 1, w, 1, c])  # [N, H, 1, W, 1, C]
    x = tf.pad(x, [[0, 0], [0, 0], [0, up[0] - 1], [0, 0], [0, up[1] - 1], [0, 0]])  # [N, H, up, W, up, C]
    return tf.reshape(x, [n, h * up[0], w * up[1], c])  # [N, H·up, W·up, C]


def _filter_down(x, f, down, pad):
    """Pad, then a strided depthwise cross-correlation with the flipped filter."""
    kernel = _depthwise_kernel(f[::-1, ::-1], x)
    same = [_same_pads(size, len_f, d) for size, len_f, d in zip(x.shape.as_list()[1:3], f.shape, down)]
    equal = down[0] == down[1]  # depthwise convolutions support equal strides only
    stride = [1, down[0], down[1], 1] if equal else [1, 1, 1, 1]
    if equal and list(pad) == same:
        return tf.nn.depthwise_conv2d(x, kernel, stride, "SAME")
    y = tf.nn.depthwise_conv2d(_pad_or_crop(x, pad), kernel, stride, "VALID")
    return y if equal else y[:, :: down[0], :: down[1]]


def _same_pads(size, len_f, stride):
    """Padding by TensorFlow's SAME rule; None if the size is unknown."""
    if size is None:
        return None
    total = max((-(-size // stride) - 1) * stride + len_f - size, 0)
    return (total // 2, total - total // 2)


def _filter_up(x, f, up, pad):
    """Zero insertion and convolution as one transposed depthwise convolution, then crop or pad to the requested size."""
    n, h, w, c = _sizes(x)
    kernel = _depthwise_kernel(f, x)
    crop = [(len_f - 1 - before, len_f - up - after) for len_f, (before, after) in zip(f.shape, pad)]
    same = [((len_f - up) // 2, len_f - up - (len_f - up) // 2) for len_f in f.shape]
    transposed = tf.nn.depthwise_conv2d_native_backprop_input
    if crop == same and min(f.shape) >= up:
        return transposed(tf.stack([n, h * up, w * up, c]), kernel, x, [1, up, up, 1], "SAME")
    full = [(size - 1) * up + len_f for size, len_f in zip((h, w), f.shape)]
    y = transposed(tf.stack([n] + full + [c]), kernel, x, [1, up, up, 1], "VALID")
    y.set_shape([None] + [s if isinstance(s, int) else None for s in full] + [c])
    return _pad_or_crop(y, [(-before, -after) for before, after in crop])


def _depthwise_kernel(f, x):
    c = x.shape.as_list()[-1]
    return tf.tile(tf.constant(np.ascontiguousarray(f)[:, :, np.newaxis, np.newaxis], x.dtype), [1, 1, c, 1])  # [fh, fw, C, 1]


def _pad_or_crop(x, pad):
    (top, bottom), (left, right) = pad
    if min(top, bottom, left, right) < 0:
        n, h, w, c = _sizes(x)
        x = x[:, max(-top, 0) : h - max(-bottom, 0), max(-left, 0) : w - max(-right, 0)]
    top, bottom, left, right = [max(p, 0) for p in (top, bottom, left, right)]
    if top + bottom + left + right:
        x = tf.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]])
    return x


def _sizes(x):
    """Sizes of the axes: ints where static, else scalar tensors."""
    known = x.shape.as_list()
    if None in known:
        dynamic = tf.shape(x)
        known = [dynamic[axis] if size is None else size for axis, size in enumerate(known)]
    return known
