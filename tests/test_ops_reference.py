"""The reference twins of the fused ops against SciPy in float64 and finite differences."""

import itertools

import numpy as np
import pytest
import scipy.special
import tensorflow.compat.v1 as tf
from scipy.signal import convolve2d, correlate2d

import ops
from dnnlib import tflib
from ops.resample import resample_filter

CASES = 40


def upfirdn_reference(x, f, up, down, pad):
    """float64: zeros inserted, padded or cropped, convolved by SciPy, every down-th kept. x [N, H, W, C]."""
    n, h, w, c = x.shape
    z = np.zeros((n, h * up[0], w * up[1], c))
    z[:, :: up[0], :: up[1]] = x
    (top, bottom), (left, right) = pad
    z = np.pad(z, ((0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)), (0, 0)), mode="constant")
    z = z[:, max(-top, 0) : z.shape[1] - max(-bottom, 0), max(-left, 0) : z.shape[2] - max(-right, 0)]
    y = [[convolve2d(z[i, :, :, j], f, mode="valid") for j in range(c)] for i in range(n)]
    return np.transpose(y, [0, 2, 3, 1])[:, :: down[0], :: down[1]]


def random_case(rng):
    pair = (lambda: tuple(int(v) for v in rng.randint(1, 4, 2))) if rng.rand() < 0.5 else (lambda: (int(rng.randint(1, 4)),) * 2)
    taps = rng.randint(1, 9, 2)
    f = np.outer(rng.randn(taps[0]), rng.randn(taps[1])) if rng.rand() < 0.5 else rng.randn(*taps)
    pad = tuple(tuple(int(v) for v in rng.randint(-2, 9, 2)) for _ in range(2))
    return rng.randn(2, rng.randint(5, 9), rng.randint(5, 9), 3), f, pair(), pair(), pad


def fits(x, f, up, pad):
    sizes = [x.shape[axis + 1] * up[axis] + sum(pad[axis]) - f.shape[axis] for axis in (0, 1)]
    return min(sizes) >= 0


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_upfirdn_random_cases(graph, layout):
    rng = np.random.RandomState(1)
    compared = 0
    while compared < CASES:
        x, f, up, down, pad = random_case(rng)
        if not fits(x, f, up, pad):
            continue
        given = x if layout == "NHWC" else x.transpose(0, 3, 1, 2)
        y = tflib.run(ops.upfirdn_2d(tf.constant(given, tf.float32), f, up, down, pad, data_format=layout))
        y = y if layout == "NHWC" else y.transpose(0, 2, 3, 1)
        expected = upfirdn_reference(x, f, up, down, pad)
        np.testing.assert_allclose(y, expected, atol=2e-5 * np.abs(expected).max(), err_msg=str((x.shape, f.shape, up, down, pad)))
        compared += 1


@pytest.mark.parametrize("up, down", [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (1, 2))])
def test_odd_pads_stand_on_their_side(graph, up, down):
    """A filter of odd length, with one more pad or crop before or after, on the side where TensorFlow's SAME has it or on the other."""
    rng = np.random.RandomState(7)
    x, f = rng.randn(1, 6, 5, 2), rng.randn(3, 3)
    given, pads = tf.constant(x, tf.float32), ((1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 0), (0, 2))
    pairs = [(pad, pad) for pad in pads] + list(itertools.permutations(pads[:3], 2))
    tensors = [ops.upfirdn_2d(given, f, up, down, pair) for pair in pairs] + [ops.upfirdn_2d(given, f, up, down)]
    tensors.append(ops.upfirdn_2d(tf.placeholder_with_default(given, [None, None, None, 2]), f, up, down, pairs[0]))
    for y, pair in zip(tflib.run(tensors), [*pairs, ((0, 0), (0, 0)), pairs[0]]):
        np.testing.assert_allclose(y, upfirdn_reference(x, f, up, down, pair), atol=1e-5, err_msg=str(pair))


@pytest.mark.parametrize("up, down, pad", [(2, 1, (2, 1)), (1, 2, (1, 1)), (1, 1, (2, 2)), (2, 1, (3, -1)), (2, 3, (4, 2))])
def test_upfirdn_second_order_by_finite_differences(graph, up, down, pad):
    """d/dx of |∂/∂x Σ sin(y)|²: the losses' gradient penalties differentiate twice."""
    rng = np.random.RandomState(2)
    f = rng.randn(4, 4)  # asymmetric, so that the flip matters
    value = rng.randn(1, 4, 4, 2).astype(np.float32)
    x = tf.placeholder(tf.float32, [1, 4, 4, 2])
    gradient = tf.gradients(tf.reduce_sum(tf.sin(ops.upfirdn_2d(x, f, up, down, pad))), [x])[0]
    penalty = tf.reduce_sum(tf.square(gradient))
    analytic = tflib.run(tf.gradients(penalty, [x])[0], {x: value})
    direction = rng.randn(*value.shape)
    step = 1e-2
    values = [float(tflib.run(penalty, {x: value + sign * step * direction})) for sign in (1, -1)]
    np.testing.assert_allclose(np.sum(analytic * direction), (values[0] - values[1]) / (2 * step), rtol=2e-2)


def activation_reference(name, x):
    """float64 formulas of the activations."""
    return {
        "linear": lambda: x,
        "relu": lambda: np.maximum(x, 0),
        "lrelu": lambda: np.where(x > 0, x, 0.2 * x),
        "tanh": lambda: np.tanh(x),
        "sigmoid": lambda: scipy.special.expit(x),
        "elu": lambda: np.where(x > 0, x, np.expm1(x)),
        "selu": lambda: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
        "softplus": lambda: np.logaddexp(0, x),
        "swish": lambda: x * scipy.special.expit(x),
    }[name]()


@pytest.mark.parametrize("name", sorted(ops.ACTIVATIONS))
@pytest.mark.parametrize("axis", [-1, 1])
def test_bias_act(graph, name, axis):
    rng = np.random.RandomState(3)
    x, b = rng.randn(2, 3, 4, 3) * 2, rng.randn(3)
    shifted = x + (b if axis == -1 else b[:, np.newaxis, np.newaxis])
    gain = np.sqrt(2) if name in ("relu", "lrelu", "swish") else 1.0
    expected = np.clip(activation_reference(name, shifted) * gain, -2.5, 2.5)
    y = ops.fused_bias_act(tf.constant(x, tf.float32), tf.constant(b, tf.float32), act=name, clamp=2.5, axis=axis)
    np.testing.assert_allclose(tflib.run(y), expected, atol=2e-6)
    doubled = ops.fused_bias_act(tf.constant(x, tf.float32), act=name, gain=2.0)
    np.testing.assert_allclose(tflib.run(doubled), 2 * activation_reference(name, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [ops.fused_bias_act, ops.scaled_bias_act])
def test_slope_of_negative_values(graph, function):
    x = np.array([[[[-2.0, 3.0]]]])
    y = tflib.run(function(tf.constant(x, tf.float32), act="lrelu", alpha=0.5, gain=1.0))
    np.testing.assert_allclose(y, [[[[-1.0, 3.0]]]])


def test_filters_of_resampling():
    np.testing.assert_allclose(resample_filter([1, 3], gain=4), np.array([[1, 3], [3, 9]]) / 4)
    np.testing.assert_allclose(resample_filter([[1, 2], [3, 4]]), np.array([[0.1, 0.2], [0.3, 0.4]]), rtol=1e-6)
    np.testing.assert_allclose(resample_filter(None), np.full([2, 2], 0.25))


def correlate(x, w):
    """float64 cross-correlation, valid, NHWC by HWIO."""
    n, _, _, c_in = x.shape
    out = [
        [sum(correlate2d(x[i, :, :, a], w[:, :, a, o], mode="valid") for a in range(c_in)) for o in range(w.shape[3])]
        for i in range(n)
    ]
    return np.transpose(out, [0, 2, 3, 1])


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("length", [4, 3])
def test_resampled_convolutions(graph, kernel, length):
    """Up: zeros between the samples, full cross-correlation, FIR. Down: FIR, cross-correlation, every other sample. Asymmetric FIR."""
    rng = np.random.RandomState(4)
    x, w = rng.randn(2, 6, 6, 3), rng.randn(kernel, kernel, 3, 2)
    taps = rng.rand(length, length) + 0.1
    tensors = tf.constant(x, tf.float32), tf.constant(w, tf.float32)

    stuffed = np.zeros((2, 11, 11, 3))
    stuffed[:, ::2, ::2] = x
    edge = kernel - 1
    full = correlate(np.pad(stuffed, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="constant"), w)
    p = length - 2 - edge
    fir = taps / taps.sum()
    up = upfirdn_reference(full, fir * 4, (1, 1), (1, 1), (((p + 1) // 2 + 1, p // 2 + 1),) * 2)
    np.testing.assert_allclose(tflib.run(ops.upsample_conv_2d(*tensors, taps=taps)), up, atol=1e-4)

    p = length - 2 + edge
    down = correlate(upfirdn_reference(x, fir, (1, 1), (1, 1), (((p + 1) // 2, p // 2),) * 2), w)[:, ::2, ::2]
    np.testing.assert_allclose(tflib.run(ops.conv_downsample_2d(*tensors, taps=taps)), down, atol=1e-4)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [True, False])
def test_modulated_convolution_equals_per_sample_weights(graph, demodulate, up):
    """The scaled form against one plain convolution per sample with its own weights."""
    rng = np.random.RandomState(5)
    x, w, s = rng.randn(3, 5, 5, 4), rng.randn(3, 3, 4, 2), rng.randn(3, 4)
    tensors = [tf.constant(value, tf.float32) for value in (x, w, s)]
    y = tflib.run(ops.scale_channels(*ops.modulated_conv_2d(*tensors, demodulate=demodulate, up=up, taps=(1, 3, 3, 1))))
    for i in range(3):
        ww = w * s[i][:, np.newaxis]
        if demodulate:
            ww = ww / np.sqrt(np.sum(ww**2, axis=(0, 1, 2)) + 1e-8)
        one = tf.constant(x[i : i + 1], tf.float32), tf.constant(ww, tf.float32)
        expected = tflib.run(ops.upsample_conv_2d(*one, taps=(1, 3, 3, 1)) if up else ops.conv_2d(*one))
        np.testing.assert_allclose(y[i : i + 1], expected, atol=1e-4)


def test_fused_modulated_convolution(graph, monkeypatch):
    """The single grouped convolution of all samples, which only GPUs support, split into its groups."""

    def grouped(x, w):
        return tf.concat([ops.conv_2d(*parts) for parts in zip(tf.split(x, 3, axis=-1), tf.split(w, 3, axis=-1))], axis=-1)

    rng = np.random.RandomState(5)
    x, w, s = [tf.constant(rng.randn(*shape), tf.float32) for shape in ([3, 5, 6, 4], [3, 3, 4, 2], [3, 4])]
    expected = ops.scale_channels(*ops.modulated_conv_2d(x, w, s))
    monkeypatch.setattr("ops.modulated_conv.conv_2d", grouped)
    y, rest = ops.modulated_conv_2d(x, w, s, fused=True)
    assert rest is None
    np.testing.assert_allclose(*tflib.run([y, expected]), atol=1e-5)


def test_scaled_bias_act(graph):
    rng = np.random.RandomState(6)
    terms = x, b, scale, residual, noise = [rng.randn(*shape) for shape in ([2, 3, 4, 5], [5], [2, 5], [2, 3, 4, 5], [1, 3, 4, 1])]
    given = [tf.constant(term, tf.float32) for term in terms]
    summed = x * scale[:, np.newaxis, np.newaxis] + residual + noise + b
    expected = np.clip(np.where(summed > 0, summed, 0.2 * summed) * np.sqrt(2), -2, 2)
    np.testing.assert_allclose(tflib.run(ops.scaled_bias_act(*given, act="lrelu", clamp=2.0)), expected, atol=1e-5)
    halved = ops.scaled_bias_act(given[0], residual=given[3], gain=0.5)
    np.testing.assert_allclose(tflib.run(halved), (x + residual) / 2, atol=1e-6)


def errors_of_float16_sums(impl):
    """Largest relative error, to second order, of the gradients that are sums over 4·64·64 pixels of float16 terms of one sign."""
    rng = np.random.RandomState(7)
    arrays = [1 + rng.rand(*shape) for shape in ([4, 64, 64, 4], [4, 64, 64, 4], [4], [4, 4], [1, 64, 64, 1])]
    given = [tf.constant(array, tf.float32) for array in arrays]
    found = []
    for dtype in (tf.float16, tf.float32):
        x, weights = (tf.cast(tensor, dtype) for tensor in given[:2])
        y = tf.cast(ops.scaled_bias_act(x, *given[2:4], noise=given[4], act="relu", impl=impl), tf.float32)
        dx = tf.gradients(tf.reduce_sum(y * tf.cast(weights, tf.float32)) / 1024, x)[0]  # weights · scale
        found.append(tf.gradients(y / 1024, given[2:]) + tf.gradients(tf.reduce_sum(tf.cast(dx * weights, tf.float32)), given[3]))
    return [np.max(np.abs(half - full) / np.abs(full)) for half, full in zip(*tflib.run(found))]


def test_sums_of_float16_gradients_keep_their_small_terms(graph):
    assert all(error < 0.005 for error in errors_of_float16_sums("ref"))
