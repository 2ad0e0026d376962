"""Modulated convolution (Karras et al. 2020, section 2.2, equations 1 and 3), features NHWC.

Letters: N batch, I and O channels in and out.
"""

import tensorflow.compat.v1 as tf

from ops.resample import conv_2d, upsample_conv_2d
from ops.scaled_bias_act import scale_channels


def modulated_conv_2d(x, w, s, demodulate=True, up=False, taps=None, fused=False):
    """Convolve each sample with its own scaled weights w·s, normalised per output channel if requested.

    The last multiplication is left to the caller: scale_channels does it, or scaled_bias_act together with its other work.

    Args:
        x: tensor [N, H, W, I].
        w: tensor [k, k, I, O].
        s: tensor [N, I], scales of the input channels.
        demodulate: divide by the norm of each output channel's scaled weights.
        up: double the size (transposed convolution and FIR).
        taps: FIR of the upsampling.
        fused: one grouped convolution with per-sample weights instead of scaling before and after (equal in value; GPUs only).

    Returns:
        (tensor [N, H, W, O], or of twice the size; factor [N, O] by which it must still be multiplied, or None).
    """
    if demodulate and x.dtype == tf.float16:
        s = s / (tf.reduce_max(tf.abs(s), axis=1, keepdims=True) + 1e-8)  # [N, I], demodulation cancels the magnitude
    scale = _demodulation(w, s) if demodulate else None  # [N, O]
    if fused and not up:
        return _grouped(x, w, s, scale), None
    x = scale_channels(x, s)  # [N, H, W, I]
    y = upsample_conv_2d(x, w, taps) if up else conv_2d(x, w)  # [N, H, W, O]
    return y, scale


def _demodulation(w, s):
    """rsqrt(Σ over kernel and input channels of (w·s)² + 1e-8), without forming per-sample weights."""
    energy = tf.reduce_sum(tf.square(w), axis=[0, 1])  # [I, O]
    return tf.rsqrt(tf.matmul(tf.square(s), energy) + 1e-8)  # [N, O]


def _grouped(x, w, s, scale):
    size, _, c_in, c_out = w.shape.as_list()
    n, h, width = tf.shape(x)[0], x.shape.as_list()[1], x.shape.as_list()[2]
    ww = w[tf.newaxis] * s[:, tf.newaxis, tf.newaxis, :, tf.newaxis]  # [N, k, k, I, O]
    if scale is not None:
        ww = ww * scale[:, tf.newaxis, tf.newaxis, tf.newaxis, :]  # [N, k, k, I, O]
    ww = tf.reshape(tf.transpose(ww, [1, 2, 3, 0, 4]), [size, size, c_in, n * c_out])  # [k, k, I, N·O]
    x = tf.reshape(tf.transpose(x, [1, 2, 0, 3]), [1, h, width, n * c_in])  # [1, H, W, N·I]
    y = conv_2d(x, ww)  # [1, H, W, N·O]
    return tf.transpose(tf.reshape(y, [h, width, n, c_out]), [2, 0, 1, 3])  # [N, H, W, O]
