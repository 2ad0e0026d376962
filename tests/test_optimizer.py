"""tflib.Optimizer against a NumPy Adam; accumulation, devices, clipping, non-finite gradients."""

import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from dnnlib.tflib.optimizer import Optimizer
from training.config import AdamConfig

SETTINGS = {"learning_rate": 0.05, "beta1": 0.3, "beta2": 0.9, "epsilon": 1e-6}
SIZED = dict(SETTINGS, beta1=0.0, epsilon=10.0)  # a large epsilon makes the step depend on the gradient's size


def make_variables():
    with tf.variable_scope("net"):
        a = tflib.get_variable("a", [3], lambda rng, shape: np.zeros(shape))
        b = tflib.get_variable("b", [2, 2], lambda rng, shape: np.zeros(shape))
    tflib.run([a.initializer, b.initializer])
    return collections.OrderedDict([("a", a), ("b", b)])


def adam_reference(gradients, learning_rate, beta1, beta2, epsilon):
    """Adam in float64 on one parameter that starts at zero; the gradients do not depend on it."""
    value, m, v = 0.0, 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        value -= learning_rate * np.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + epsilon)
    return value


def linear_loss(variables, a_gradient, b_gradient):
    """A loss whose gradients are the values that are fed."""
    return tf.reduce_sum(variables["a"] * a_gradient) + tf.reduce_sum(variables["b"] * b_gradient)


@pytest.fixture
def session():
    with tflib.session_scope():
        yield


def test_adam_against_numpy(session):
    variables = make_variables()
    optimizer = Optimizer("G_opt", variables, **SETTINGS)
    feed = tf.placeholder(tf.float32, [])
    _, finish = optimizer.build([linear_loss(variables, feed, 2 * feed)], ["/cpu:0"])
    gradients = [1.0, -0.5, 2.0, 0.1, -3.0]
    norms = [tflib.run(finish, {feed: g})[0] for g in gradients]
    a, b = tflib.run(list(variables.values()))
    np.testing.assert_allclose(a, adam_reference(gradients, **SETTINGS), rtol=1e-5)
    np.testing.assert_allclose(b, adam_reference([2 * g for g in gradients], **SETTINGS), rtol=1e-5)
    np.testing.assert_allclose(norms, [np.sqrt(3 * g**2 + 4 * (2 * g) ** 2) for g in gradients], rtol=1e-5)


def test_two_losses_share_one_state(session):
    variables = make_variables()
    optimizer = Optimizer("G_opt", variables, **SETTINGS)
    finish = [optimizer.build([linear_loss(variables, g, g)], ["/cpu:0"])[1] for g in (1.0, 5.0)]
    for index in (0, 1, 0):
        tflib.run(finish[index])
    np.testing.assert_allclose(tflib.run(variables["a"]), adam_reference([1.0, 5.0, 1.0], **SETTINGS), rtol=1e-5)


def test_accumulation_averages_rounds(session):
    variables = make_variables()
    optimizer = Optimizer("G_opt", variables, rounds=3, **SIZED)
    feed = tf.placeholder(tf.float32, [])
    accumulate, finish = optimizer.build([linear_loss(variables, feed, feed)], ["/cpu:0"])
    for step in range(2):
        for gradient in (1.0, 4.0, -2.0 * step):
            tflib.run(accumulate, {feed: gradient})
        tflib.run(finish)
    np.testing.assert_allclose(tflib.run(variables["b"]), adam_reference([5 / 3, 1.0], **SIZED), rtol=1e-5)


def test_devices_are_averaged(session):
    variables = make_variables()
    optimizer = Optimizer("G_opt", variables, **SIZED)
    losses = [linear_loss(variables, g, g) for g in (1.0, 2.0, 6.0)]
    _, finish = optimizer.build(losses, ["/cpu:0"] * 3)
    tflib.run(finish)
    tflib.run(finish)
    np.testing.assert_allclose(tflib.run(variables["a"]), adam_reference([3.0, 3.0], **SIZED), rtol=1e-5)


def test_clipping_to_the_global_norm(session):
    variables = make_variables()
    optimizer = Optimizer("G_opt", variables, clip_norm=2.0, **SIZED)
    feed = tf.placeholder(tf.float32, [])
    _, finish = optimizer.build([linear_loss(variables, feed, feed)], ["/cpu:0"])
    for gradient in (10.0, 0.1, 0.0):
        tflib.run(finish, {feed: gradient})
    clipped = [10.0 * 2.0 / (10.0 * np.sqrt(7)), 0.1, 0.0]
    np.testing.assert_allclose(tflib.run(variables["a"]), adam_reference(clipped, **SIZED), rtol=1e-5)


def test_unconnected_variable_has_zero_gradient(session):
    variables = make_variables()
    optimizer = Optimizer("D_opt", variables, **SETTINGS)
    _, finish = optimizer.build([tf.reduce_sum(variables["a"])], ["/cpu:0"])
    squares = tflib.run(finish)[1]
    np.testing.assert_allclose(squares, [3.0, 0.0])
    np.testing.assert_array_equal(tflib.run(variables["b"]), np.zeros([2, 2]))


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_gradient_changes_nothing(session, rounds, bad):
    variables = make_variables()
    optimizer = Optimizer("G_opt", variables, rounds=rounds, **SETTINGS)
    feed = tf.placeholder(tf.float32, [])
    accumulate, finish = optimizer.build([linear_loss(variables, 1.0, feed)], ["/cpu:0"])

    def step(gradients):
        if rounds == 1:
            return tflib.run(finish, {feed: gradients[-1]})
        for gradient in gradients:
            tflib.run(accumulate, {feed: gradient})
        return tflib.run(finish)

    step([1.0, 1.0])
    before = tflib.run([*variables.values(), *optimizer.state.values()])
    _, squares, applied, total, _ = step([1.0, bad])
    after = dict(zip([*variables, *optimizer.state], tflib.run([*variables.values(), *optimizer.state.values()])))
    assert (applied, total) == (False, 1)
    assert optimizer.first_bad(squares) == "b"
    for (name, value), old in zip(after.items(), before):
        assert np.array_equal(value, old) == (name != "skipped"), name
    step([1.0, bad])
    _, _, applied, total, _ = step([1.0, 1.0])
    assert (applied, total) == (True, 2)
    np.testing.assert_allclose(tflib.run(variables["a"]), adam_reference([1.0, 1.0], **SETTINGS), rtol=1e-5)


def test_lazy_settings():
    lazy = AdamConfig(learning_rate=0.01, beta1=0.5, beta2=0.99).lazy(16)
    assert lazy.learning_rate == pytest.approx(0.01 * 16 / 17)
    assert lazy.beta1 ** (17 / 16) == pytest.approx(0.5)
    assert lazy.beta2 ** (17 / 16) == pytest.approx(0.99)
