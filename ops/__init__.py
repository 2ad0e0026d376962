"""Fused bias-activation and FIR resampling: one function each, with a reference twin and a compiled implementation."""

from dnnlib import tflib  # noqa: F401 isort: skip (the switch comes first)

from ops.fused_bias_act import ACTIVATIONS, fused_bias_act
from ops.implementation import set_implementation
from ops.modulated_conv import modulated_conv_2d
from ops.resample import conv_2d, conv_downsample_2d, convolve_in, downsample_2d, resample_filter, upsample_2d, upsample_conv_2d
from ops.scaled_bias_act import scale_channels, scaled_bias_act
from ops.upfirdn_2d import upfirdn_2d

__all__ = [
    "ACTIVATIONS",
    "conv_2d",
    "conv_downsample_2d",
    "convolve_in",
    "downsample_2d",
    "fused_bias_act",
    "modulated_conv_2d",
    "resample_filter",
    "scale_channels",
    "scaled_bias_act",
    "set_implementation",
    "upfirdn_2d",
    "upsample_2d",
    "upsample_conv_2d",
]
