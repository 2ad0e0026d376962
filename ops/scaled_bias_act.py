"""The end of a synthesis layer in one pass over a convolution's output: demodulation, residual, noise, bias, activation.

Letters: N batch, H W height and width, C channels.
"""

import tensorflow.compat.v1 as tf

from ops import compiled, implementation
from ops.fused_bias_act import ACTIVATIONS, fused_bias_act, spread


def scaled_bias_act(x, b=None, scale=None, residual=None, noise=None, act="linear", gain=None, clamp=None, alpha=None, impl=None):
    """y = clamp(gain · act(x · scale + residual + noise + b)).

    With act "linear" and gain √½ it is the sum of a residual block, (x + residual + b)/√2.

    Args:
        x: tensor [N, H, W, C].
        b: bias [C], or None.
        scale: factor of every channel [N, C], such as the demodulation (Karras et al. 2020, equation 3), or None.
        residual: tensor like x, or None.
        noise: scaled noise [1 or N, H, W, 1], or None.
        act, gain, clamp, alpha, impl: as in fused_bias_act.

    Returns:
        Tensor like x, differentiable to any order.
    """
    spec = ACTIVATIONS[act]
    gain, alpha = [default if given is None else given for given, default in ((gain, spec.gain), (alpha, spec.alpha))]
    library = implementation.library(impl)
    if library is not None and compiled.can_bias_act(x, act, alpha, True, impl) and act in compiled.PIECEWISE_LINEAR:
        return compiled.bias_act(library, x, b, act, alpha, gain, clamp, True, scale, residual, noise)
    if scale is not None:
        x = x * spread(scale[:, tf.newaxis, tf.newaxis, :], x)  # [N, H, W, C]
    for term in (residual, noise):
        if term is not None:
            x = x + spread(term, x)  # [N, H, W, C]
    return fused_bias_act(x, b, act, gain, clamp, alpha=alpha, impl=impl)


def scale_channels(x, scale):
    """x [N, H, W, C] times scale [N, C]; None for 1."""
    return x if scale is None else scaled_bias_act(x, scale=scale)
