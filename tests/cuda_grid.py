"""The random grid of test cases for bias_act and upfirdn2d, and their float64 answers from NumPy / SciPy."""

import numpy as np
import scipy.signal
import scipy.special

from benchmarks.cuda_kernels import ACTIVATIONS, TYPES, decode, encode

SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
EPSILON = {"float32": 2.0 ** -23, "float16": 2.0 ** -10, "bfloat16": 2.0 ** -7}
TINY = {"float32": 1e-30, "float16": 2.0 ** -24, "bfloat16": 1e-30}


def activation(act, u, order, alpha=0.2):
    """act^(order)(u) in float64: textbook formulas up to order 2, central differences of these beyond."""
    if order > 2:
        step = 1e-3
        return (activation(act, u + step, order - 1, alpha) - activation(act, u - step, order - 1, alpha)) / (2 * step)
    s = scipy.special.expit(u)
    t = np.tanh(u)
    e = np.exp(np.minimum(u, 0))
    one, zero = np.ones_like(u), np.zeros_like(u)
    formulas = {
        "linear": (u, one, zero),
        "relu": (np.maximum(u, 0), np.where(u > 0, one, zero), zero),
        "lrelu": (np.where(u > 0, u, alpha * u), np.where(u > 0, one, alpha * one), zero),
        "tanh": (t, 1 - t ** 2, -2 * t * (1 - t ** 2)),
        "sigmoid": (s, s * (1 - s), s * (1 - s) * (1 - 2 * s)),
        "elu": (np.where(u < 0, np.expm1(np.minimum(u, 0)), u), np.where(u < 0, e, one), np.where(u < 0, e, zero)),
        "selu": (SELU_SCALE * np.where(u < 0, SELU_ALPHA * np.expm1(np.minimum(u, 0)), u),
                 SELU_SCALE * np.where(u < 0, SELU_ALPHA * e, one), SELU_SCALE * np.where(u < 0, SELU_ALPHA * e, zero)),
        "softplus": (np.logaddexp(0, u), s, s * (1 - s)),
        "swish": (u * s, s + u * s * (1 - s), s * (1 - s) * (2 + u * (1 - 2 * s))),
    }
    return formulas[act][order]


def upfirdn2d(x, f, up, down, pad, flip=False, channels_last=True):
    """Zero insertion, padding or cropping, SciPy's convolution, decimation. Arguments as in `Kernels.upfirdn2d`; f [taps_y, taps_x]."""
    planes = np.moveaxis(x, 3, 1) if channels_last else x
    samples, channels, height, width = planes.shape
    zoomed = np.zeros((samples, channels, height * up[1], width * up[0]))
    zoomed[:, :, ::up[1], ::up[0]] = planes
    x0, x1, y0, y1 = pad
    zoomed = np.pad(zoomed, [(0, 0), (0, 0), (max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))], mode="constant")
    zoomed = zoomed[:, :, max(-y0, 0):zoomed.shape[2] - max(-y1, 0), max(-x0, 0):zoomed.shape[3] - max(-x1, 0)]
    f = f[::-1, ::-1] if flip else f
    out = np.zeros((samples, channels, zoomed.shape[2] - f.shape[0] + 1, zoomed.shape[3] - f.shape[1] + 1))
    for index in np.ndindex(samples, channels):
        out[index] = scipy.signal.convolve(zoomed[index], f, mode="valid", method="direct")
    out = out[:, :, ::down[1], ::down[0]]
    return np.moveaxis(out, 1, 3) if channels_last else out


def upfirdn2d_by_axes(x, fy, fx, up, down, pad):
    """upfirdn2d of channels-last pictures with a separable filter, for large ones: SciPy's upfirdn along one axis after the other."""
    for axis, f, u, d, (before, after) in ((1, fy, up[1], down[1], pad[2:]), (2, fx, up[0], down[0], pad[:2])):
        full = scipy.signal.upfirdn(f, x, up=u, axis=axis)  # zero padding at both ends, length (size - 1)·up + taps
        wanted = x.shape[axis] * u + before + after - len(f) + 1
        start = len(f) - 1 - before
        index = np.arange(start, start + wanted, d)
        inside = (index >= 0) & (index < full.shape[axis])
        x = np.take(full, np.clip(index, 0, full.shape[axis] - 1), axis=axis)
        x = x * inside.reshape([-1 if a == axis else 1 for a in range(4)])
    return x


MANY_CHANNELS_OPTIONS = [
    {"up": (2, 2), "pad": (2, 1, 2, 1)},
    {"down": (2, 2), "pad": (1, 1, 1, 1)},
    {"pad": (-3, 2, 1, -1)},
    {"pad": (9, 10, 8, 11)},
    {"down": (2, 2), "pad": (9, 10, 8, 11)},
]


def check_many_channels(kernels, shape, taps, dtype, options):
    """upfirdn2d of channels-last pictures [N, H, W, C] with a separable filter; some pads reach beyond the filter."""
    random = np.random.RandomState(shape[3])
    x = stored(random.randn(*shape), dtype)
    fy, fx = (stored(random.randn(taps), "float32") for _ in range(2))
    got = kernels.upfirdn2d(x, fy, fx, dtype=dtype, **options)
    options = {"up": (1, 1), "down": (1, 1), **options}
    magnitude = upfirdn2d_by_axes(np.abs(x), np.abs(fy), np.abs(fx), **options)
    assert_close(got, upfirdn2d_by_axes(x, fy, fx, **options), magnitude, dtype)


PLANES = [(2, 3, 5, 4), (1, 4, 70, 8), (3, 11, 33, 32), (2, 2, 20, 68), (1, 1, 9, 132), (1, 2, 8, 6)]  # [N, C, H, W]
PLANES_OPTIONS = [  # those of the networks, whose rows are read and written as whole words if the widths allow, and some others
    {"up": (2, 2), "pad": (2, 1, 2, 1)},
    {"up": (2, 2), "pad": (2, 1, 1, 2)},
    {"up": (2, 2), "pad": (1, 2, 2, 1)},
    {"up": (2, 2), "pad": (2, 0, 3, -1)},
    {"down": (2, 2), "pad": (1, 1, 1, 1)},
    {"down": (2, 2), "pad": (2, 1, 0, 3)},
    {"pad": (1, 1, 2, 2)},
    {"pad": (2, 2, 1, 1)},
    {"up": (2, 2), "pad": (2, 1, 45, 1)},  # whole strips above the picture
    {"down": (2, 2), "pad": (1, 1, 43, 1)},
    {"pad": (2, 2, 41, 38)},
]


def check_planes(kernels, shape, dtype, options):
    """upfirdn2d of channels-first pictures [N, C, H, W] with a separable 4-tap filter, also where they begin at an odd address."""
    random = np.random.RandomState(shape[3])
    x = stored(random.randn(*shape), dtype)
    fy, fx = (stored(random.randn(4), "float32") for _ in range(2))
    whole = {"up": (1, 1), "down": (1, 1), "channels_last": False, **options}
    expected, magnitude = upfirdn2d(x, np.outer(fy, fx), **whole), upfirdn2d(np.abs(x), np.abs(np.outer(fy, fx)), **whole)
    for misaligned in (False, True):
        got = kernels.upfirdn2d(x, fy, fx, dtype=dtype, channels_last=False, misaligned=misaligned, **options)
        assert_close(got, expected, magnitude, dtype)


def stored(values, dtype):
    """The values after rounding to `dtype`."""
    return decode(encode(values, dtype), dtype)


def assert_close(got, expected, magnitude, dtype, roundings=1):
    """Within `roundings` roundings to the result's type plus float32's errors on terms of size `magnitude`."""
    allowed = roundings * EPSILON[dtype] * np.abs(expected) + 1e-6 * magnitude + TINY[dtype]
    worst = np.max(np.abs(got - expected) - allowed) if got.size else 0.0
    assert got.shape == expected.shape
    assert worst <= 0 and not np.isnan(got).any(), f"exceeds the tolerance by {worst}"


def check_bias_act(kernels, seed):
    """One random case of bias_act: the value with optional terms, or a derivative."""
    random = np.random.RandomState(seed)
    dtype, act = TYPES[seed % 3], ACTIVATIONS[random.randint(9)]
    channels_last, order = bool(random.randint(2)), int(random.choice([0, 0, 1, 1, 2, 3]))
    samples, pixels, channels = random.randint(0, 4), random.choice([1, 7, 16, 64, 129]), random.choice([1, 3, 8, 24, 40, 513])
    shape = (samples, pixels, channels) if channels_last else (samples, channels, pixels)
    options = {"gain": float(random.choice([1.0, np.sqrt(2), -0.5])), "clamp": float(random.choice([-1.0, 1.0, 0.3])), "alpha": 0.2}

    def draw(*size):
        return stored(2 * random.randn(*size), dtype)

    x, bias = draw(*shape), draw(channels) if random.randint(4) else None
    terms = {} if bias is None else {"bias": bias}
    along_channels = (lambda v: v[..., None, :]) if channels_last else (lambda v: v[..., :, None])
    along_pixels = (lambda v: v[..., :, None]) if channels_last else (lambda v: v[..., None, :])
    u = x + (0 if bias is None else along_channels(bias))
    factor = np.ones_like(x)
    if order == 0:
        if random.randint(2):
            terms["scale"] = draw(samples, channels)
            u = u + x * (along_channels(terms["scale"]) - 1)
        if random.randint(2):
            terms["residual"] = draw(*shape)
            u = u + terms["residual"]
        if random.randint(2):
            terms["noise"] = draw(random.choice([1, samples]) if samples else 1, pixels)
            u = u + along_pixels(terms["noise"])
    value = options["gain"] * activation(act, u, 0)
    limit = np.inf if options["clamp"] < 0 else float(stored([options["clamp"]], dtype)[0])
    expected = np.clip(value, -limit, limit)
    if order:
        terms["ref"] = stored(expected, dtype) if act in ("linear", "relu", "lrelu") else x
        if act in ("linear", "relu", "lrelu"):
            terms.pop("bias", None)
        # Values that rounding may move across the clamp or the kink have no well-defined derivative.
        safe = (np.abs(np.abs(value) - limit) > 0.01) & (np.abs(u) > 1e-3)
        factor = np.where(safe, draw(*shape), 0.0)
        expected = factor * options["gain"] * activation(act, u, order) * (np.abs(value) < limit)
    got = kernels.bias_act(factor if order else x, act, order, channels_last, dtype, misaligned=random.randint(4) == 0, **options, **terms)
    size = np.abs(factor) * (1 + np.abs(u)) * (1.0 if order < 3 else 10.0)
    assert_close(got, expected, 4 * size, dtype)


def check_bias_act_long_rows(kernels, pixels, channels_last):
    """float32 bias_act with every term, 1030 channels and `pixels` pixels: rows longer than one line of the CPU kernel."""
    random = np.random.RandomState(pixels)
    channels, pixel_axis, channel_axis = 1030, (1 if channels_last else 2), (2 if channels_last else 1)
    shape = (2, pixels, channels) if channels_last else (2, channels, pixels)
    x, residual, bias, scale, noise = (stored(random.randn(*size), "float32")
                                       for size in (shape, shape, (channels,), (2, channels), (2, pixels)))
    bias_as_x = bias[None, None] if channels_last else bias[None, :, None]
    u = x * np.expand_dims(scale, pixel_axis) + residual + np.expand_dims(noise, channel_axis) + bias_as_x
    got = kernels.bias_act(x, "lrelu", 0, channels_last, "float32", gain=1.5, clamp=3.0, alpha=0.2, bias=bias, scale=scale,
                           residual=residual, noise=noise)
    assert_close(got, np.clip(1.5 * activation("lrelu", u, 0), -3, 3), 4 * (1 + np.abs(u)), "float32")


def check_bias_act_in_place(kernels, dtype, channels_last, order):
    """bias_act whose result overwrites x, with every term it may have: the same numbers as with a separate result."""
    random = np.random.RandomState(order)
    x, other = random.randn(2, 2, 24, 40)  # [x and other, N, pixels, C] or [..., C, pixels]
    terms = {"bias": random.randn(40 if channels_last else 24)}
    if order == 0:
        terms.update(residual=other, scale=random.randn(2, len(terms["bias"])), noise=random.randn(1, 24 if channels_last else 40))
    else:
        terms["ref"] = other
    options = {"act": "swish", "order": order, "channels_last": channels_last, "dtype": dtype}
    np.testing.assert_array_equal(kernels.bias_act(x, in_place=True, **options, **terms), kernels.bias_act(x, **options, **terms))


def random_fir_case(seed):
    """Sizes and options of one case; every fourth is one of the networks' own 4-tap cases."""
    random = np.random.RandomState(seed)
    case = {"dtype": TYPES[seed % 3], "channels_last": bool(random.randint(2)), "flip": bool(random.randint(2))}
    if seed % 2:
        taps_y = taps_x = 4
        up, down = [((2, 2), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (1, 1))][random.randint(3)]
        separable = True
    else:
        taps_y, taps_x = (int(v) for v in random.choice([1, 2, 3, 4, 5, 8, 12, 32], 2))
        up, down = tuple(int(v) for v in random.randint(1, 5, 2)), tuple(int(v) for v in random.randint(1, 5, 2))
        separable = bool(random.randint(2))
    height, width = (int(v) for v in random.choice([1, 2, 5, 8, 16, 31, 33, 66], 2))
    pad = []
    for size, taps, factor in ((width, taps_x, up[0]), (height, taps_y, up[1])):
        ends = [int(v) for v in random.randint(-2, taps + 2, 2)]
        ends[1] += max(0, taps - size * factor - sum(ends))
        pad += ends
    channels = int(random.choice([1, 3, 8, 16, 40] if height * width < 500 else [1, 8]))
    case.update(shape=(random.randint(0, 3), height, width, channels), taps=(taps_y, taps_x), separable=separable, up=up, down=down,
                pad=tuple(pad), misaligned=random.randint(6) == 0)
    return case, random


def check_upfirdn2d(kernels, seed):
    """One random case of upfirdn2d."""
    case, random = random_fir_case(seed)
    shape, (taps_y, taps_x) = case.pop("shape"), case.pop("taps")
    x = stored(random.randn(*shape), case["dtype"])
    x = x if case["channels_last"] else np.ascontiguousarray(np.moveaxis(x, 3, 1))
    if case.pop("separable"):
        fy, fx = stored(random.randn(taps_y), "float32"), stored(random.randn(taps_x), "float32")
        f = np.outer(fy, fx)
    else:
        f = fy = stored(random.randn(taps_y, taps_x), "float32")
        fx = None
    got = kernels.upfirdn2d(x, fy, fx, **case)
    options = {key: case[key] for key in ("up", "down", "pad", "flip", "channels_last")}
    expected = upfirdn2d(x, f, **options)
    magnitude = upfirdn2d(np.abs(x), np.abs(f), **options)
    assert_close(got, expected, magnitude, case["dtype"])
