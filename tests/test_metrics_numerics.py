"""The metrics' numerics against golden files, SciPy and naive float64 loops."""

import errno
import functools
import glob
import os
import tempfile
import types

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from metrics import fid, kid, metric_base, ppl, precision_recall, resize
from metrics.metric_base import REGISTRY
from metrics.rows import Rows, batches_of
from tests import golden_metrics
from tests.conftest import golden_path
from tests.metrics_standins import tf1_bilinear


@pytest.mark.parametrize("name", ["inception_score.npz", "ppl.npz", "resize.npz"])
def test_golden_file(name):
    error, tolerance = golden_metrics.check_file(golden_path("metrics", name))
    assert error <= tolerance == 1e-9


@pytest.mark.slow
def test_golden_feature_sets():
    for path in sorted(glob.glob(os.path.join(golden_path("metrics"), "set_*.npz"))):
        error, tolerance = golden_metrics.check_file(path)
        assert error <= tolerance, path


@pytest.mark.parametrize("name", ["fid_ddof1", "kid_full_unbiased", "kid_block250_tfgan"])
def test_golden_check_can_fail(tmp_path, name):
    with np.load(golden_path("metrics", "set_A.npz")) as stored:
        data = {key: stored[key] for key in ("real", "fake", name)}
    data[name] = data[name] * (1 + 1e-8)
    np.savez(str(tmp_path / "set_A.npz"), **data)
    with pytest.raises(UserError, match=f"{name}: relative error .* above 1e-09"):
        golden_metrics.check_file(str(tmp_path / "set_A.npz"))


def test_golden_check_refuses_an_unknown_file(tmp_path):
    np.savez(str(tmp_path / "other.npz"), numbers=np.zeros(3))
    with pytest.raises(UserError, match="not a metrics file"):
        golden_metrics.check_file(str(tmp_path / "other.npz"))


def _correlated(stream, count, width, offset=0.0):
    return stream.randn(count, width) @ stream.randn(width, width) / np.sqrt(width) + offset


def test_fid_equals_matrix_square_root():
    stream = np.random.RandomState(0)
    one, other = _correlated(stream, 400, 24), _correlated(stream, 300, 24, 0.2)
    statistics = [fid.FeatureStatistics(24) for _ in range(2)]
    for collected, features in zip(statistics, (one, other)):
        for batch in np.array_split(features, 5):
            collected.add(batch)
    s1, s2 = np.cov(one.T), np.cov(other.T)
    difference = one.mean(0) - other.mean(0)
    exact = difference @ difference + np.trace(s1 + s2) - 2 * np.trace(np.real(scipy.linalg.sqrtm(s1 @ s2)))
    measured = fid.frechet_distance(statistics[0].mean, statistics[0].covariance(), statistics[1].mean, statistics[1].covariance())
    assert measured == pytest.approx(exact, rel=1e-10)


def test_fid_rank_deficient_equals_nuclear_norm():
    stream = np.random.RandomState(1)
    one, other = stream.randn(20, 60), 1.5 * stream.randn(30, 60) + 0.1
    x, y = one - one.mean(0), other - other.mean(0)
    nuclear = np.linalg.svd(x @ y.T, compute_uv=False).sum() / np.sqrt(19 * 29)
    assert fid.root_trace(np.cov(one.T), np.cov(other.T)) == pytest.approx(nuclear, rel=1e-12)
    assert fid.root_trace(np.zeros((4, 4)), np.eye(4)) == 0


@pytest.mark.parametrize("count, width", [(2000, 64), (100, 400)])
def test_fid_of_a_set_with_itself_is_zero(count, width):
    """In another order and in other batches, with more images than features and with fewer."""
    stream = np.random.RandomState(11)
    features = (10 * np.maximum(_correlated(stream, count, width, 0.5), 0)).astype(np.float32)
    statistics = [fid.FeatureStatistics(width) for _ in range(2)]
    for collected, parts in zip(statistics, (np.array_split(features, 7), np.array_split(features[stream.permutation(count)], 3))):
        for batch in parts:
            collected.add(batch)
    distance = fid.frechet_distance(*(value for one in statistics for value in (one.mean, one.covariance())))
    assert abs(distance) < 1e-6
    moved = fid.frechet_distance(statistics[0].mean + 0.01, statistics[0].covariance(), statistics[1].mean, statistics[1].covariance())
    assert moved == pytest.approx(width * 0.01**2, rel=1e-3)


def test_statistics_keep_their_digits_far_from_zero(tmp_path):
    features = _correlated(np.random.RandomState(2), 500, 8, offset=1e6)
    collected = fid.FeatureStatistics(8)
    for batch in np.array_split(features, 11):
        collected.add(batch)
    np.testing.assert_allclose(collected.covariance(), np.cov((features - 1e6).T), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(collected.mean, features.mean(0), rtol=1e-14)
    with open(str(tmp_path / "s.npz"), "wb") as file:
        collected.save(file)
    again = fid.FeatureStatistics(8)
    again.load(str(tmp_path / "s.npz"))
    assert again.count == 500
    np.testing.assert_array_equal(again.covariance(), collected.covariance())
    with pytest.raises(ValueError, match="expected 9"):
        fid.FeatureStatistics(9).load(str(tmp_path / "s.npz"))


def test_not_finite_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        fid.root_trace(np.full((2, 2), np.nan), np.eye(2))
    with pytest.raises(ValueError, match="NaN"):
        golden_metrics.inception_scores(np.full((20, 3), np.inf), 2)


def test_inception_score_equals_the_definition():
    logits = 3 * np.random.RandomState(3).randn(47, 5)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = []
    for part in range(4):
        q = p[part * 47 // 4 : (part + 1) * 47 // 4]
        expected.append(np.exp(np.mean(np.sum(q * np.log(q / q.mean(0)), axis=1))))
    np.testing.assert_allclose(golden_metrics.inception_scores(logits, 4), expected, rtol=1e-12)
    impossible = np.full([47, 1], -2000.0)  # its p is 0
    np.testing.assert_allclose(golden_metrics.inception_scores(np.concatenate([logits, impossible], axis=1), 4), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="at least 48"):
        golden_metrics.inception_scores(logits, 48)


def test_kid_equals_naive_loops():
    stream = np.random.RandomState(4)
    reals, fakes = stream.randn(7, 3), stream.randn(5, 3) + 0.5

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b)) / 3 + 1) ** 3

    within_reals = np.mean([kernel(a, b) for i, a in enumerate(reals) for j, b in enumerate(reals) if i != j])
    within_fakes = np.mean([kernel(a, b) for i, a in enumerate(fakes) for j, b in enumerate(fakes) if i != j])
    across = np.mean([kernel(a, b) for a in reals for b in fakes])
    assert kid.unbiased_mmd2(reals, fakes) == pytest.approx(within_reals + within_fakes - 2 * across, rel=1e-12)
    blocks = [kid.unbiased_mmd2(reals[:3], fakes[:2]), kid.unbiased_mmd2(reals[3:], fakes[2:])]
    mean, error = kid.block_estimate(reals, fakes, 4)
    assert mean == pytest.approx(np.mean(blocks))
    assert error == pytest.approx(np.std(blocks, ddof=1) / np.sqrt(2))
    assert np.isnan(kid.block_estimate(reals, fakes, 7)[1])
    for one, other in ((reals[:1], fakes), (reals, fakes[:1])):
        with pytest.raises(ValueError, match=f"got {len(one)} real and {len(other)} generated features, expected at least 2 of each"):
            kid.unbiased_mmd2(one, other)


def test_kid_subsets_draw_fakes_first():
    stream = np.random.RandomState(9)
    fakes = stream.choice(6, 4, replace=False)
    reals = stream.choice(8, 4, replace=False)
    (drawn,) = kid.draw_subsets(8, 6, 1, 4, 9)
    np.testing.assert_array_equal(drawn[0], reals)
    np.testing.assert_array_equal(drawn[1], fakes)


def _naive_overlap(reals, fakes, k):
    def distances(a, b):
        return np.array([np.square(p.astype(np.float64) - b.astype(np.float64)).sum(axis=1) for p in a])

    radii = [np.sort(distances(own, own), axis=1)[:, k] for own in (reals, fakes)]
    across = distances(fakes, reals)
    return radii, (across <= radii[0]).any(axis=1), (across <= radii[1][:, None]).any(axis=0)


@pytest.mark.parametrize("dtype,offset", [(np.float32, 0), (np.float32, 300), (np.float16, 0), (np.float64, 5)])
def test_precision_recall_equals_naive_loops(monkeypatch, dtype, offset):
    monkeypatch.setattr(precision_recall, "BLOCK_ELEMENTS", 500)
    stream = np.random.RandomState(5)
    reals = (stream.randn(60, 6) + offset).astype(dtype)
    fakes = (1.3 * stream.randn(45, 6) + offset + 0.5).astype(dtype)
    fakes[:5] = reals[:5]  # at each other's centre
    fakes[5:10] = fakes[5]  # radius 0
    reals[50:55] = reals[50]
    radii, fake_in_real, real_in_fake = _naive_overlap(reals, fakes, 3)
    measured = [precision_recall.manifold_radii2(own, 3) for own in (reals, fakes)]
    np.testing.assert_allclose(measured[0], radii[0], rtol=1e-12)
    np.testing.assert_allclose(measured[1], radii[1], rtol=1e-12)
    masks = precision_recall.manifold_overlap(reals, fakes, *measured)
    np.testing.assert_array_equal(masks[0], fake_in_real)
    np.testing.assert_array_equal(masks[1], real_in_fake)
    assert 0 < fake_in_real.mean() < 1


def test_precision_recall_decides_below_float32():
    """Points on a line whose distances to a ball's border differ by less than float32 products can resolve."""
    reals = np.array([[1000.0], [1001.0], [1003.0]], np.float64)
    fakes = np.array([[1005.0], [1005.0 + 1e-7], [1002.0], [999.0 - 1e-9]], np.float64)
    radii = precision_recall.manifold_radii2(reals, 1)
    np.testing.assert_array_equal(radii, [1, 1, 4])
    fake_in_real, _ = precision_recall.manifold_overlap(reals, fakes, radii, precision_recall.manifold_radii2(fakes, 1))
    np.testing.assert_array_equal(fake_in_real, [True, False, True, False])


def _spread(stream, centers, share, count=300):
    """Features at random centers [C, D], each coordinate off by a random share of itself."""
    chosen = centers[stream.randint(len(centers), size=count)]
    return (chosen * (1 + share * stream.randn(*chosen.shape))).astype(np.float32)


@pytest.mark.parametrize("clusters, share", [(300, 1), (1, 5e-2), (1, 5e-3), (1, 1e-5), (10, 5e-3), (10, 1e-4), (10, 0), (1, 0)])
def test_precision_recall_of_collapsed_sets(monkeypatch, clusters, share):
    """Still exact, and only a few distances need exact differences, however close together the features lie."""
    stream, pairs = np.random.RandomState(6), []

    def exact(x, y, x_indices, y_indices):
        pairs.append(len(x_indices))
        return exact_squared_distances(x, y, x_indices, y_indices)

    exact_squared_distances = precision_recall.exact_squared_distances
    monkeypatch.setattr(precision_recall, "exact_squared_distances", exact)
    monkeypatch.setattr(precision_recall, "BLOCK_ELEMENTS", 40000)
    centers = np.abs(stream.randn(clusters, 50))
    reals, fakes = _spread(stream, centers, share), _spread(stream, centers, share, 340)
    radii, fake_in_real, real_in_fake = _naive_overlap(reals, fakes, 3)
    measured = [precision_recall.manifold_radii2(own, 3) for own in (reals, fakes)]
    masks = precision_recall.manifold_overlap(reals, fakes, *measured)
    for index in range(2):
        np.testing.assert_allclose(measured[index], radii[index], rtol=1e-12)
        np.testing.assert_array_equal(masks[index], (fake_in_real, real_in_fake)[index])
    assert sum(pairs) < 1.5 * 4 * (len(reals) + len(fakes))  # for each one its 3 neighbours and itself, and not many more


def test_equal_features_are_known_as_such():
    """Each copy of a point counts as one neighbour, and a point equal to it lies in its ball of radius 0."""
    reals = np.array([[0.0], [-0.0], [0.0], [0.0], [0.0], [2.0], [2.0], [3.0]])
    first, before = precision_recall.equal_rows(reals)
    np.testing.assert_array_equal(first, [0, 0, 0, 0, 0, 5, 5, 7])
    np.testing.assert_array_equal(before, [0, 1, 2, 3, 4, 0, 1, 0])
    radii = precision_recall.manifold_radii2(reals, 3)
    np.testing.assert_array_equal(radii, [0, 0, 0, 0, 0, 4, 4, 9])
    fakes = np.array([[-0.0], [0.0], [-1.0], [5.0], [5.0]])
    fake_in_real, real_in_fake = precision_recall.manifold_overlap(reals, fakes, radii, np.array([0.0, 0, 0, 4, 4]))
    np.testing.assert_array_equal(fake_in_real, [True, True, False, True, True])
    np.testing.assert_array_equal(real_in_fake, [True] * 5 + [False, False, True])


def test_too_few_features_are_refused():
    with pytest.raises(ValueError, match="more than the 3"):
        precision_recall.manifold_radii2(np.zeros((3, 2)), 3)


def test_slerp_goes_round_the_sphere():
    a, b = np.array([[2.0, 0, 0]]), np.array([[0, 0.5, 0]])
    angles = np.linspace(0, 1, 5)[:, None] * np.pi / 2
    expected = np.concatenate([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    np.testing.assert_allclose(ppl.slerp(a, b, np.linspace(0, 1, 5)[:, None]), expected, atol=1e-15)


def test_slerp_of_equal_and_opposite_vectors_is_finite():
    a = np.random.RandomState(1).randn(50, 8)
    unit = a / np.linalg.norm(a, axis=1, keepdims=True)
    for t in (0, 0.3, 1):
        np.testing.assert_allclose(ppl.slerp(a, 2 * a, t), unit, atol=1e-7)
    opposite = ppl.slerp([[3.0, 0, 0]], [[-1.0, 0, 0]], np.array([[0], [0.3], [1]]))
    np.testing.assert_allclose(opposite, [[1, 0, 0], [1, 0, 0], [-1, 0, 0]], atol=1e-15)
    np.testing.assert_array_equal(ppl.slerp(np.eye(3), np.eye(3), 0.5), np.eye(3))


def test_percentile_filter_keeps_the_middle():
    values = np.random.RandomState(6).permutation(201).astype(float)
    kept, low, high = ppl.percentile_filter(values)
    assert (low, high) == (2, 198)
    assert sorted(kept) == list(range(2, 199))


@pytest.mark.parametrize("size,target", [((33, 47), (29, 31)), ((5, 8), (37, 19)), ((20, 20), (20, 20))])
def test_tf1_bilinear_equals_the_op(size, target):
    images = np.random.RandomState(7).randint(0, 256, (2,) + size + (3,)).astype(np.uint8)
    with tflib.session_scope():
        resized = tflib.run(tf.image.resize_bilinear(tf.constant(images, tf.float32), target))
    np.testing.assert_array_equal(tf1_bilinear(images, *target), resized)


def test_clean_bicubic_keeps_constants_and_range():
    images = np.full((1, 40, 30, 3), 77, np.uint8)
    np.testing.assert_allclose(resize.clean_bicubic(images, 13, 50), 77, rtol=1e-6)
    checks = np.kron([[0, 255], [255, 0]], np.ones((8, 8))).astype(np.uint8)[None, :, :, None]
    enlarged = resize.clean_bicubic(checks, 61, 61)
    assert enlarged.min() == 0
    assert enlarged.max() == 255


def test_rows_in_a_file_equal_rows_in_memory(monkeypatch, tmp_path):
    rows = np.random.RandomState(8).randn(50, 7).astype(np.float32)
    monkeypatch.setattr("metrics.rows.IN_MEMORY_BYTES", 100)
    monkeypatch.setattr("metrics.rows.BLOCK_BYTES", 100)
    stored = Rows(60, 7, str(tmp_path / "new"))
    stored.add(rows[:20])
    stored.add(rows[20:])
    assert isinstance(stored.array, np.memmap)
    assert not list((tmp_path / "new").iterdir())
    np.testing.assert_array_equal(np.concatenate(list(batches_of(stored.array))), rows)
    with pytest.raises(ValueError, match="at most 60"):
        stored.add(rows)


def test_rows_in_a_file_have_their_space_from_the_start(monkeypatch, tmp_path):
    """If a full disk cannot fill a hole in the file, the process that writes there is killed."""
    monkeypatch.setattr("metrics.rows.IN_MEMORY_BYTES", 100)
    monkeypatch.setattr("tempfile.TemporaryFile", functools.partial(tempfile.NamedTemporaryFile, delete=False))
    assert Rows(1000, 100, str(tmp_path)).array.shape == (0, 100)
    assert [path.stat().st_blocks * 512 >= 400000 for path in tmp_path.iterdir()] == [True]

    def fail(number):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.posix_fallocate", lambda *arguments: fail(errno.ENOSYS))
    unsure = Rows(1000, 100, str(tmp_path))
    unsure.add(np.ones((1000, 100), np.float32))
    assert unsure.array.sum() == 100000
    monkeypatch.setattr("os.posix_fallocate", lambda *arguments: fail(errno.ENOSPC))
    with pytest.raises(OSError, match=f"No space left on device for 4 MB of features: '{tmp_path}'"):
        Rows(10000, 100, str(tmp_path))
    monkeypatch.delattr("os.posix_fallocate")
    assert Rows(1000, 100, str(tmp_path)).array.shape == (0, 100)


def test_protocols_are_those_of_the_documentation():
    """The numbers that papers and other tools agree on (docs/metrics.md); the other tests' sets are too small to reach them."""
    kid_metric, pr, swd, fid_metric = (REGISTRY[name] for name in ("kid", "pr", "swd", "fid"))
    assert kid_metric.settings(5000, 4000) == {"subsets": 100, "subset_size": 1000, "block_size": 1024}
    assert kid_metric.settings(5000, 400)["subset_size"] == 400
    assert (kid.block_count(1024, 1000), kid.block_count(1000, 1025)) == (1, 2)
    assert kid_metric.counts(3000000, 50000) == (1000000, 50000) and pr.counts(3000000, 50000) == (200000, 50000)
    assert swd.counts(20000, 50000) == (16384, 16384) and swd.counts(20000, 500) == (500, 500)
    assert fid_metric.counts(3000000, 50000) == (3000000, 50000)
    assert pr.parameters == {"neighbours": 3} and REGISTRY["is"].parameters == {"splits": 10}
    assert swd.parameters == {"patches_per_image": 128, "directions": 512}
    assert REGISTRY["ppl"].parameters["epsilon"] == 1e-4 and ppl.LARGEST_SIZE == 256


def test_inception_score_is_of_ten_parts():
    logits = np.random.RandomState(11).randn(50, 4)
    collected = REGISTRY["is"].collector(50, (4,), None)
    collected.add(logits[:23])
    with pytest.raises(ValueError, match="got 23 images, expected 50"):
        REGISTRY["is"].score(None, collected, None)
    collected.add(logits[23:])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    parts = [np.exp(scipy.stats.entropy(part, part.mean(0, keepdims=True), axis=1).mean()) for part in np.split(p, 10)]
    assert list(REGISTRY["is"].score(None, collected, None).items()) == [
        ("is", pytest.approx(np.mean(parts), rel=1e-12)), ("is_std", pytest.approx(np.sqrt(np.mean(np.square(parts - np.mean(parts)))))),
    ]  # fmt: skip


@pytest.mark.parametrize("reals,fakes,blocks", [(50, 40, False), (40, 40, False), (2100, 1500, True), (2100, 4, False)])
def test_kid_reports_spreads_where_there_are_any(monkeypatch, reals, fakes, blocks):
    monkeypatch.setattr(kid, "SUBSETS", 5)
    stream = np.random.RandomState(10)
    rows = [Rows(count, 2) for count in (reals, fakes)]
    for own in rows:
        own.add(stream.randn(len(own._data), 2))
    context = types.SimpleNamespace(options=metric_base.Options(seed=4))
    scores = kid.KernelInceptionDistance().score(*rows, context)
    size = min(reals, fakes, 1000)
    drawn = kid.draw_subsets(reals, fakes, 5, size, 4)
    expected = [kid.unbiased_mmd2(rows[0].array[r], rows[1].array[f]) for r, f in drawn]
    assert scores["kid"] == pytest.approx(np.mean(expected), rel=1e-12)
    assert ("kid_blocks" in scores) == blocks
    assert scores.get("kid_std") == (None if reals == fakes else pytest.approx(np.std(expected), rel=1e-9))
