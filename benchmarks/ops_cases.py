"""The cases that benchmarks.ops measures."""

import itertools

FUSIONS = ("layer_end", "residual_sum")  # channels last only
TAPS = (1, 3, 3, 1)
RESAMPLING = {"up": {"up": 2, "pad": (2, 1)}, "down": {"down": 2, "pad": (1, 1)}, "filter": {"pad": (1, 1)}}
OPS = ("bias_act", *FUSIONS, *RESAMPLING)


def cases(device, quick):
    """(op, dtype name, data format, shape [N, C, H, W]) of every measurement."""
    if quick:
        return [(op, "float32", "NHWC", (8, 64, 32, 32)) for op in OPS]
    if device == "cpu":
        return list(itertools.product(OPS, ("float32",), ("NHWC",), [(8, 64, 32, 32), (8, 128, 64, 64), (4, 3, 128, 128)]))
    shapes = [(8, 512, 32, 32), (8, 256, 64, 64), (8, 128, 128, 128), (8, 64, 256, 256)]
    every = itertools.product(OPS, ("float32", "float16"), ("NHWC", "NCHW"), shapes)
    return [case for case in every if case[2] == "NHWC" or case[0] not in FUSIONS]
