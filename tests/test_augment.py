"""DiffAugment against NumPy loops; how draws are made and applied."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from tests.conftest import golden_path
from training import augment
from training.config import AugmentConfig

pytestmark = pytest.mark.usefixtures("graph")
IMAGES = np.random.RandomState(0).uniform(-1, 1, [5, 12, 9, 3])  # [N, H, W, C], not square


def run(tensors):
    return tflib.run(tensors)


def moved(image, rows, columns):
    out = np.zeros_like(image)
    height, width = image.shape[:2]
    for i in range(height):
        for j in range(width):
            if 0 <= i + rows < height and 0 <= j + columns < width:
                out[i, j] = image[i + rows, j + columns]
    return out


def cut(image, row, column, height, width):
    out = image.copy()
    for i in range(height):
        for j in range(width):
            y = np.clip(row - height // 2 + i, 0, image.shape[0] - 1)
            x = np.clip(column - width // 2 + j, 0, image.shape[1] - 1)
            out[y, x] = 0
    return out


def test_golden_draws():
    from tests import golden_vitgan

    error, tolerance = golden_vitgan.check_file(golden_path("vitgan", "diffaug.npz"))
    assert error <= tolerance == 1e-9


@pytest.mark.parametrize("rows, columns", [(0, 0), (3, -2), (-1, 4), (11, 8), (12, 0), (-30, 30)])
def test_translation(rows, columns):
    shifts = [tf.constant([value] * 5, tf.int32) for value in (rows, columns)]
    value = run(augment.translate(tf.constant(IMAGES), *shifts))
    np.testing.assert_array_equal(value, [moved(image, rows, columns) for image in IMAGES])


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (0, 0), (12, 9), (1, 1)])
def test_cutout(size):
    places = [np.array([0, 6, 11, 12, 3]), np.array([9, 0, 4, 8, 2])]
    mask = augment.cutout_mask(tf.constant(IMAGES), *[tf.constant(p, tf.int32) for p in places], *size)
    expected = [cut(image, row, column, *size) for image, row, column in zip(IMAGES, *places)]
    np.testing.assert_array_equal(run(tf.constant(IMAGES) * mask), expected)


def test_colors():
    u = np.array([0.1, 0.5, 0.9, 0.0, 0.7])
    x, t = IMAGES, u[:, None, None, None]
    pixel, whole = x.mean(3, keepdims=True), x.mean((1, 2, 3), keepdims=True)
    values = run([f(tf.constant(x), tf.constant(u)) for f in (augment.brightness, augment.saturation, augment.contrast)])
    for value, expected in zip(values, (x + t - 0.5, (x - pixel) * 2 * t + pixel, (x - whole) * (t + 0.5) + whole)):
        np.testing.assert_allclose(value, expected, rtol=1e-12)


def augmented(count, step=0, **config):
    images = tf.constant(np.random.RandomState(1).uniform(-1, 1, [count, 3, 16, 16]), tf.float32)
    return images, augment.augment(images, AugmentConfig(kind="diffaug", **config), tflib.RandomStreams(3, step))


def test_none_is_the_same_tensor():
    images = tf.zeros([2, 3, 8, 8])
    assert augment.augment(images, AugmentConfig(), tflib.RandomStreams(0)) is images
    with pytest.raises(ValueError, match="'ada'.*diffaug"):
        augment.augment(images, AugmentConfig(kind="ada"), tflib.RandomStreams(0))


def test_probability_is_of_each_operation_and_image():
    """If each operation has probability p, an image stays unchanged with probability (1 − p)^5; all are drawn independently."""
    images, never = augmented(64, probability=0.0)
    _, half = augmented(4000, probability=0.5)
    x, value = run([images, never])
    np.testing.assert_array_equal(x, value)
    original = np.random.RandomState(1).uniform(-1, 1, [4000, 3, 16, 16]).astype(np.float32)
    same = np.all(run(half) == original, axis=(1, 2, 3)).mean()
    assert abs(same - 0.5**5) < 4 * np.sqrt(0.5**5 / 4000)


def test_draws_cover_their_ranges_evenly():
    images = tf.zeros([6000, 16, 16, 1])
    seen = {}

    class Recorder(tflib.RandomStreams):
        def uniform(self, name, shape):
            seen[name] = super().uniform(name, shape)
            return seen[name]

    picture = tf.tile(tf.reshape(tf.range(256.0), [1, 16, 16, 1]), [6000, 1, 1, 1])
    named = dict(augment.operations(images, AugmentConfig(cutout=0.3), Recorder(0)))
    shifted = run(named["translation"](picture))[:, 8, 8, 0]
    rows, columns = shifted // 16 - 8, shifted % 16 - 8
    for values in (rows, columns):
        found, counts = np.unique(values, return_counts=True)
        assert list(found) == [-2, -1, 0, 1, 2] and counts.min() > 1050 and counts.max() < 1350
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.05
    holes = 1 - run(named["cutout"](tf.ones_like(picture)))[..., 0]  # side 5, centre 0 .. 15
    assert {int(hole.sum()) for hole in holes} == {a * b for a in (3, 4, 5) for b in (3, 4, 5)}
    values = run(seen)
    assert len(values) == 7 and len({value[0] for value in values.values()}) == 7  # every draw has its own stream


def test_images_have_draws_of_their_own_and_steps_too():
    same = tf.tile(tf.random.stateless_uniform([1, 3, 16, 16], seed=[1, 2]), [8, 1, 1, 1])
    config = AugmentConfig(kind="diffaug", probability=1.0)
    first, again, later = run([augment.augment(same, config, tflib.RandomStreams(3, step)) for step in (0, 0, 1)])
    assert len(np.unique(first.reshape(8, -1), axis=0)) == 8
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)


def test_gradient_is_the_adjoint():
    """With given draws, the augmentation is affine in the image: T(x + d) − T(x) projected on r equals d projected on its gradient."""
    x, value = augmented(6, probability=0.7)
    rng = np.random.RandomState(5)
    d, r = rng.standard_normal([2, 6, 3, 16, 16]).astype(np.float32)
    gradient = tf.gradients(tf.reduce_sum(value * r), x)[0]
    moved_value = augment.augment(x + d, AugmentConfig(kind="diffaug", probability=0.7), tflib.RandomStreams(3, 0))
    before, after, gradient = run([value, moved_value, gradient])
    np.testing.assert_allclose(np.sum((after - before) * r), np.sum(gradient * d), rtol=1e-4)
    assert np.all(np.abs(gradient).sum((1, 2, 3)) > 0)
