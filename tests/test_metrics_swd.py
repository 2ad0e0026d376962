"""Sliced Wasserstein distance against SciPy's filters and against its closed form in one dimension."""

import types

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

import metrics
from metrics import swd
from tests.metrics_standins import ArrayDataset, BlobGenerator

KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def _scipy_up(image, height, width):
    zeros = np.zeros((height, width))
    zeros[::2, ::2] = image
    return scipy.ndimage.convolve(zeros, 4 * KERNEL, mode="mirror")


@pytest.mark.parametrize("height,width", [(16, 32), (33, 40), (31, 64)])
def test_pyramid_equals_scipy(height, width):
    images = np.random.RandomState(0).rand(2, 3, height, width).astype(np.float32) * 255
    sizes = [(height, width), ((height + 1) // 2, (width + 1) // 2)]
    fine, coarse = swd.laplacian_pyramid(images, sizes)
    for n in range(2):
        for c in range(3):
            down = scipy.ndimage.convolve(images[n, c].astype(np.float64), KERNEL, mode="mirror")[::2, ::2]
            np.testing.assert_allclose(coarse[n, c], down, atol=1e-4)
            np.testing.assert_allclose(fine[n, c], images[n, c] - _scipy_up(down, height, width), atol=2e-4)


def test_pyramid_sizes():
    assert swd.pyramid_sizes(64, 64) == [(64, 64), (32, 32), (16, 16)]
    assert swd.pyramid_sizes(193, 256) == [(193, 256), (97, 128), (49, 64), (25, 32)]


def test_cut_patches_are_the_neighbourhoods():
    level = np.arange(2 * 9 * 10, dtype=np.float32).reshape(2, 9, 10)
    patches = swd.cut_patches(level, np.array([[3, 4], [5, 6]]))
    np.testing.assert_array_equal(patches[0], level[:, 0:7, 1:8].ravel())
    np.testing.assert_array_equal(patches[1], level[:, 2:9, 3:10].ravel())


def test_distance_is_the_mean_of_one_dimensional_distances():
    stream = np.random.RandomState(1)
    a = stream.randn(500, 3 * 49).astype(np.float32) * 7 + 2
    b = stream.rand(500, 3 * 49).astype(np.float32) ** 3
    measured = swd.sliced_wasserstein(a, b, 3, seed=5, directions=16, repeats=2)

    def normalised(patches):
        values = patches.astype(np.float64).reshape(-1, 3, 49)
        return ((values - values.mean(axis=(0, 2))[:, None]) / values.std(axis=(0, 2))[:, None]).reshape(-1, 147)

    draws = swd.image_stream(5, "swd-directions", 0)
    directions = np.concatenate([swd.random_directions(16, 147, draws) for _ in range(2)])
    np.testing.assert_allclose(np.square(directions).sum(axis=1), 1)
    exact = [scipy.stats.wasserstein_distance(normalised(a) @ d, normalised(b) @ d) for d in directions]
    assert measured == pytest.approx(np.mean(exact), rel=1e-5)


def test_unequal_sets_are_refused():
    with pytest.raises(ValueError, match="equal shapes"):
        swd.sliced_wasserstein(np.zeros((4, 49), np.float32), np.zeros((5, 49), np.float32), 1, 0)


def test_patches_do_not_depend_on_the_batch_size():
    images = np.random.RandomState(2).randint(0, 256, (5, 3, 32, 32), np.uint8)
    whole, parts = (swd.PatchSets(5, (3, 32, 32), seed=3) for _ in range(2))
    whole.add(images)
    parts.add(images[:2])
    parts.add(images[2:])
    for one, other in zip(whole.rows, parts.rows):
        np.testing.assert_array_equal(one.array, other.array)


def test_patches_reach_every_border():
    images = np.zeros([40, 1, 20, 24], np.uint8)
    images[:, 0, 0], images[:, 0, -1], images[:, 0, :, 0], images[:, 0, :, -1] = 10, 20, 30, 40
    collected = swd.PatchSets(40, (1, 20, 24), seed=0)  # one level: the images themselves
    collected.add(images)
    patches = collected.rows[0].array.reshape(-1, 7, 7)
    for border, value in ((patches[:, 0, 3], 10), (patches[:, -1, 3], 20), (patches[:, 3, 0], 30), (patches[:, 3, -1], 40)):
        assert (border == value).any()
    assert len(np.unique(patches, axis=0)) > len(np.unique(patches[:128], axis=0))  # different positions in different images


def test_score_is_a_thousand_times_the_mean_over_the_levels():
    stream = np.random.RandomState(4)
    sets = [swd.PatchSets(6, (3, 32, 48), seed=1) for _ in range(2)]
    for own, largest in zip(sets, (255, 100)):
        own.add(stream.randint(largest, size=[6, 3, 32, 48]).astype(np.uint8))
    context = types.SimpleNamespace(options=types.SimpleNamespace(seed=7))
    scores = swd.SlicedWasserstein().score(*sets, context)
    levels = [1000 * swd.sliced_wasserstein(real.array, fake.array, 3, 7) for real, fake in zip(sets[0].rows, sets[1].rows)]
    assert list(scores) == ["swd", "swd_48", "swd_24"]
    np.testing.assert_allclose(list(scores.values()), [np.mean(levels), *levels])


@pytest.mark.parametrize("colour", [0, 77, 255])
def test_sets_of_one_colour_are_zeros_beside_normalised_ones(colour):
    """They have no deviation that could be scaled to 1 like that of the others."""
    plain, grain = (swd.PatchSets(4, (3, 32, 32), seed=1) for _ in range(2))
    plain.add(np.full([4, 3, 32, 32], colour, np.uint8))
    grain.add(np.random.RandomState(5).randint(256, size=[4, 3, 32, 32]).astype(np.uint8))
    directions = swd.random_directions(8, 147, swd.image_stream(0, "swd-directions", 0))
    for one, other in zip(plain.rows, grain.rows):
        values = other.array.astype(np.float64).reshape(-1, 3, 49)
        normalised = ((values - values.mean(axis=(0, 2))[:, None]) / values.std(axis=(0, 2))[:, None]).reshape(-1, 147)
        measured = swd.sliced_wasserstein(one.array, other.array, 3, seed=0, directions=8, repeats=1)
        assert measured == pytest.approx(np.abs(normalised @ directions.T).mean(), rel=1e-3)


def _dataset_like(Gs, count, seed=1):
    z = np.random.RandomState(seed).randn(count, 2, 4).astype(np.float32)
    return ArrayDataset(np.clip(np.floor(Gs.run_part("synthesis", 2 * z).images * 127.5 + 128), 0, 255).astype(np.uint8))


def test_evaluation_ranks_generators():
    options = metrics.Options(images_num=40, progress=False)
    good = BlobGenerator()
    dataset = _dataset_like(good, 40)
    assert metrics.resolve("swd", options, dataset) == ["swd"]
    scores = []
    for contrast in (1.0, 0.1):
        (result,) = metrics.evaluate("swd", BlobGenerator(contrast=contrast), dataset, options)
        assert result.error is None
        assert list(result.values) == ["swd", "swd_32", "swd_16"]
        assert result.value == pytest.approx((result.values["swd_32"] + result.values["swd_16"]) / 2)
        scores.append(result.value)
    assert scores[0] < 0.6 * scores[1]
