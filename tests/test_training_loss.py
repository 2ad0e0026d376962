"""Losses against NumPy float64, regularizers against finite differences."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from training import augment, loss, presets


def softplus(x):
    return np.logaddexp(0, x)


def relu(x):
    return np.maximum(x, 0)


GENERATOR = {
    "logistic": lambda f: -softplus(f),
    "logistic_ns": lambda f: softplus(-f),
    "hinge": lambda f: -f,
    "wgan": lambda f: -f,
}
DISCRIMINATOR = {
    "logistic": lambda f, r: softplus(f) + softplus(-r),
    "hinge": lambda f, r: relu(1 + f) + relu(1 - r),
    "wgan": lambda f, r: f - r + 0.001 * r**2,
}
FAKE, REAL = np.random.RandomState(0).standard_normal([2, 64, 1]) * 5


@pytest.fixture(autouse=True)
def session():
    with tflib.session_scope():
        yield


@pytest.mark.parametrize("kind", sorted(GENERATOR))
def test_generator_loss(kind):
    value = tflib.run(loss.generator_loss(kind, tf.constant(FAKE, tf.float32)))
    assert value.shape == (64, 1)
    np.testing.assert_allclose(value, GENERATOR[kind](FAKE), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(DISCRIMINATOR))
def test_discriminator_loss(kind):
    value = tflib.run(loss.discriminator_loss(kind, tf.constant(FAKE, tf.float32), tf.constant(REAL, tf.float32)))
    assert value.shape == (64, 1)
    np.testing.assert_allclose(value, DISCRIMINATOR[kind](FAKE, REAL), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(GENERATOR))
def test_generator_loss_falls_as_the_fakes_look_real(kind):
    values = tflib.run(loss.generator_loss(kind, tf.constant([[-2.0], [2.0]])))
    assert values[1] < values[0]  # the public release's hinge had the opposite sign


def test_the_command_line_accepts_what_there_is():
    choices = {option.name: option.choices for option in presets.OPTIONS}
    assert set(choices["g_loss"]) == set(loss.GENERATOR_LOSSES) == set(GENERATOR)
    assert set(choices["d_loss"]) == set(loss.DISCRIMINATOR_LOSSES) == set(DISCRIMINATOR)
    assert choices["augment"] == augment.KINDS


def test_unknown_loss_is_named():
    with pytest.raises(ValueError, match="'foo'.*hinge"):
        loss.generator_loss("foo", tf.constant([[0.0]]))


def score(x, weight):
    """A nonlinear score of one image, NumPy."""
    return np.sum(np.tanh(x * weight) ** 2 + x**3 * weight)


def score_tf(x, weight):
    return tf.reduce_sum(tf.tanh(x * weight) ** 2 + x**3 * weight, axis=[1, 2, 3])[:, tf.newaxis]


def finite_difference(function, x, step=1e-5):
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def test_penalties_against_finite_differences():
    rng = np.random.RandomState(1)
    images, weight = rng.standard_normal([4, 3, 2, 2]), rng.standard_normal([3, 2, 2])
    norms = np.array([np.sum(finite_difference(lambda x: score(x, weight), image) ** 2) for image in images])
    x = tf.constant(images, tf.float32)
    scores = score_tf(x, tf.constant(weight, tf.float32))
    np.testing.assert_allclose(tflib.run(loss.squared_gradient(scores, x)), norms, rtol=1e-4)
    np.testing.assert_allclose(tflib.run(loss.gradient_penalty(scores, x)), (np.sqrt(norms) - 1) ** 2, rtol=1e-4)


def test_gradient_of_r1_against_finite_differences():
    rng = np.random.RandomState(2)
    image, weight = rng.standard_normal([3, 2, 2]), rng.standard_normal([3, 2, 2])

    def penalty(w):
        return np.sum(finite_difference(lambda x: score(x, w), image) ** 2)

    x, w = tf.constant(image[np.newaxis], tf.float32), tf.constant(weight, tf.float32)
    value = tf.gradients(tf.reduce_sum(loss.squared_gradient(score_tf(x, w), x)), w)[0]
    np.testing.assert_allclose(tflib.run(value), finite_difference(penalty, weight, 1e-4), rtol=2e-3, atol=1e-3)


def test_path_lengths_against_finite_differences():
    rng = np.random.RandomState(3)
    ws, noise = rng.standard_normal([2, 3, 5, 4]), rng.standard_normal([2, 3, 2, 6])
    mix = rng.standard_normal([3 * 5 * 4, 3 * 2 * 6])
    expected = []
    for w, y in zip(ws, noise):
        jacobian = finite_difference(lambda v, y=y: np.sum(np.sin(v.reshape(-1) @ mix) * (y / np.sqrt(12)).reshape(-1)), w)
        expected.append(np.sqrt(np.mean(np.sum(jacobian**2, axis=2))))
    w = tf.constant(ws, tf.float32)
    images = tf.reshape(tf.sin(tf.matmul(tf.reshape(w, [2, -1]), tf.constant(mix, tf.float32))), [2, 3, 2, 6])
    np.testing.assert_allclose(tflib.run(loss.path_lengths(images, w, tf.constant(noise, tf.float32))), expected, rtol=1e-4)


def test_interpolation_lies_between():
    real, fake = tf.ones([64, 3, 4, 4]), -tf.ones([64, 3, 4, 4])
    mixed = tflib.run(loss.interpolate(real, fake, tflib.RandomStreams(0, 5)))
    assert np.all(np.ptp(mixed, axis=(1, 2, 3)) == 0)
    values = mixed[:, 0, 0, 0]
    assert values.min() >= -1 and values.max() <= 1
    assert len(np.unique(values)) == 64
