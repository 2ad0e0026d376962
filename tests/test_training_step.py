"""The stages of a step, one by one: what they change, what they leave alone, the same results on any number of devices."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import EasyDict, UserError, tflib
from tests.conftest import half_of
from tests.training_standins import GANFORMER, ArrayDataset, small_networks, small_training
from training import step as training_step
from training.config import AugmentConfig, LossConfig
from training.step import Batch, TrainingStep


@pytest.fixture
def four_cpus():
    tflib.init_tf("cpu", cpu_replicas=4)
    yield
    tflib.init_tf("cpu")


def make_step(config, devices=("/cpu:0",), classes=0, generator=None):
    networks = small_networks(c_dim=classes, generator=generator)
    dataset = ArrayDataset(classes)
    return TrainingStep(networks["G"], networks["D"], networks["Gs"], config, dataset.labels, list(devices)), dataset


def batch_at(dataset, position, size=8):
    return Batch(position, *next(dataset.batches(size, seed=0, position=position)))


def values_of(step):
    return {name: network.get_values() for name, network in (("G", step.G), ("D", step.D), ("Gs", step.Gs))}


def changed(before, after):
    return {name for name in before if any(not np.array_equal(before[name][key], after[name][key]) for key in before[name])}


def test_stages_one_by_one():
    with tflib.session_scope():
        step, dataset = make_step(small_training())
        stages = {stage.name: stage for stage in step.stages}
        assert [(s.name, s.interval) for s in step.stages] == [
            ("generator", 1), ("path_length", 2), ("discriminator", 1), ("r1", 3), ("moving_average", 1),
        ]  # fmt: skip
        for name, interval in (("G", 2), ("D", 3)):
            assert step.optimizers[name].learning_rate == pytest.approx(0.002 * interval / (interval + 1))
            assert step.optimizers[name].beta2 == pytest.approx(0.99 ** (interval / (interval + 1)))
        batch = batch_at(dataset, 0)
        effects = {"generator": {"G"}, "path_length": {"G"}, "discriminator": {"D"}, "r1": {"D"}, "moving_average": {"Gs"}}
        for name, networks in effects.items():
            before = values_of(step)
            statistics = stages[name].run(batch)
            assert changed(before, values_of(step)) == networks, name
            assert all(np.isfinite(value) for value in statistics.values())
        assert step.path_length_mean > 0


def test_every_trainable_variable_moves():
    with tflib.session_scope():
        step, dataset = make_step(small_training(pathreg=False), generator=GANFORMER)
        before = values_of(step)
        for index in range(2):
            step.run(batch_at(dataset, 8 * index), index)
        after = values_of(step)
        still = {key for name in ("G", "D") for key in before[name] if np.array_equal(before[name][key], after[name][key])}
        trainable = {*step.G.trainables, *step.D.trainables}
        unused = {key for key in trainable if key.endswith("_key") or key == "ltnt_emb/emb"}  # not used by k-means scores
        assert still & trainable == unused


def test_moving_average_against_numpy():
    with tflib.session_scope():
        step, dataset = make_step(small_training(pathreg=False, d_reg="non"))
        expected = step.Gs.get_values()
        beta = 0.5 ** (8 / 50)
        for index in range(2):
            step.run(batch_at(dataset, 8 * index), index)
            for key, value in step.G.get_values().items():
                expected[key] = value + (expected[key] - value) * beta if key in step.G.trainables else value
        for key, value in step.Gs.get_values().items():
            np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-7, err_msg=key)


def test_passes_and_steps_have_latents_of_their_own():
    with tflib.session_scope():
        step, _ = make_step(small_training(pathreg=False, d_reg="non"))
        drawn = []
        for position in (0, 4):
            streams = tflib.RandomStreams(7, position)
            for phase in ("generator_loss", "path_length", "discriminator_loss"):
                drawn += list(tflib.run(step._latents(streams.child(phase), 4)[0]))
        gaps = [np.abs(a - b).max() for i, a in enumerate(drawn) for b in drawn[:i]]
        assert len(drawn) == 24 and min(gaps) > 0.1


@pytest.mark.slow
def test_devices_and_rounds_give_the_same_result(four_cpus):
    results = []
    for count in (1, 2, 4):
        with tflib.session_scope():
            step, dataset = make_step(small_training(batch_size=16, pathreg=False), devices=[f"/cpu:{i}" for i in range(count)])
            assert step.rounds == 4 // count
            statistics = [step.run(batch_at(dataset, 16 * index, 16), index) for index in range(2)]
            results.append((statistics, values_of(step)))
    for statistics, values in results[1:]:
        for one, other in zip(statistics, results[0][0]):
            assert one.keys() == other.keys()
            for name in one:
                assert one[name] == pytest.approx(other[name], rel=2e-3), name
        for key in results[0][1]["D"]:
            np.testing.assert_allclose(values["D"][key], results[0][1]["D"][key], atol=1e-3, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("d_reg", half_of(["r2", "gp", "non"]))
def test_other_regularizers_and_labels(d_reg):
    with tflib.session_scope():
        step, dataset = make_step(small_training(d_reg=d_reg, pathreg=False, g_loss="hinge", d_loss="hinge"), classes=3)
        statistics = step.run(batch_at(dataset, 0), 0)
        assert (f"Regularizer/{d_reg}" in statistics) == (d_reg != "non")
        assert all(np.isfinite(value) for value in statistics.values())
        adapted = step.optimizers["D"].learning_rate / step.config.d_adam.learning_rate
        assert adapted == pytest.approx(1.0 if d_reg == "non" else 3 / 4)


def test_mirroring_changes_half_of_the_reals():
    with tflib.session_scope():
        step, dataset = make_step(small_training(batch_size=32, batch_gpu=32, pathreg=False, d_reg="non"))
        batch = batch_at(dataset, 0, 32)
        seen = tflib.run(step._part(0).reals, step._feed(batch, 0))
        reals = batch.reals / 127.5 - 1
        same = np.array([np.allclose(a, b, atol=1e-5) for a, b in zip(seen, reals)])
        flipped = np.array([np.allclose(a, b[:, :, ::-1], atol=1e-5) for a, b in zip(seen, reals)])
        assert np.all(same ^ flipped)
        assert 6 <= flipped.sum() <= 26


def test_a_skipped_update_leaves_no_trace():
    """Weights are not finite for one step: values that move along with the updates (means, averages) are not spoilt for good."""
    with tflib.session_scope():
        step, dataset = make_step(small_training(), generator={**GANFORMER, "norm": "batch"})
        step.run(batch_at(dataset, 0), 0)
        good, mean = step.G.get_values(), step.path_length_mean
        name = next(name for name in step.G.trainables if name.endswith("weight"))
        step.G.set_values({name: np.full_like(good[name], np.nan)})
        stages = {stage.name: stage for stage in step.stages}
        assert stages["generator"].run(batch_at(dataset, 8)) == {} and step.totals["Skipped/G"] == 1
        assert stages["path_length"].run(batch_at(dataset, 8)) == {"Path/mean": mean} and step.totals["Skipped/G"] == 2
        step.G.set_values({name: good[name]})
        for key, value in step.G.get_values().items():
            np.testing.assert_array_equal(value, good[key], err_msg=key)
        average = step.G.get_values()["dlatent_avg"]
        statistics = {**stages["generator"].run(batch_at(dataset, 16)), **stages["path_length"].run(batch_at(dataset, 16))}
        assert step.totals["Skipped/G"] == 2 and np.isfinite(list(statistics.values())).all() and step.path_length_mean != mean
        assert np.all(step.G.get_values()["dlatent_avg"] != average)
        assert set(step._skipped_in_row.values()) == {0}


def test_a_loss_that_is_never_finite_ends_the_training(monkeypatch, capsys):
    """Counted for each loss separately: good updates of the discriminator in between do not hide the regularizer's bad ones."""
    monkeypatch.setattr(training_step.loss, "squared_gradient", lambda scores, images: tf.reduce_sum(scores) * [np.float32(np.nan)])
    monkeypatch.setattr(training_step, "SKIPS_IN_ROW", 3)
    with tflib.session_scope():
        step, dataset = make_step(small_training(pathreg=False, d_reg_interval=1))
        for index in range(2):
            step.run(batch_at(dataset, 8 * index), index)
            assert step.totals["Skipped/D"] == index + 1
        assert capsys.readouterr().out.count("D_r1: update skipped, non-finite gradient in ") == 2
        with pytest.raises(UserError, match="D_r1: 3 updates in a row had non-finite gradients, first in .*; the last good snapshot"):
            step.run(batch_at(dataset, 16), 2)


@pytest.mark.parametrize("kind", half_of(["diffaug", "none"]))
def test_the_weights_of_the_regularizers(kind):
    """Lazy regularization multiplies by the interval; R1 has γ / 2, path length 2 × --g-reg-weight (specification of the training).
    R1's gradient is with respect to the real images before any augmentation."""
    config = small_training(gamma=6.0, g_reg_weight=3.0, g_reg_interval=4, d_reg_interval=16)
    config = dataclasses.replace(config, augment=AugmentConfig(kind=kind, probability=1.0))
    with tflib.session_scope():
        step, dataset = make_step(config)
        feed = step._feed(batch_at(dataset, 0), 0)
        part = step._part(0)
        (r1, r1_shown, _), (path, path_shown, _) = step._discriminator_penalty(part), step._path_length_penalty(part)
        values = tflib.run([r1, r1_shown["Regularizer/r1"], path, path_shown["Regularizer/path_length"]], feed)
        own = part.streams.child("r1")
        scores = step._scores(step._augment(part.reals, own), part.labels, own.child("discriminator"))
        squares = tflib.run(tf.reduce_sum(tf.square(tf.gradients(tf.reduce_sum(scores), part.reals)[0]), axis=[1, 2, 3]), feed)
    assert values[0] == pytest.approx(16 * 6.0 / 2 * squares.mean(), rel=1e-4)
    assert values[2] == pytest.approx(2 * 3.0 * 4 * values[3], rel=1e-5) and values[3] > 0


WEIGHTS = np.random.RandomState(9).standard_normal([3, 8, 8])
MIX = np.random.RandomState(8).standard_normal([8, 3 * 8 * 8])


def formula_step(config):
    """A TrainingStep whose two networks are formulas that NumPy can repeat.

    Returns:
        (step, dataset, painted, judged): calls of the networks append to the two lists.
    """
    painted, judged = [], []

    def paint(z, labels, training, streams, noise_mode):
        assert training and noise_mode == "random" and z.shape.as_list()[1:] == [1, 8]
        painted.append((tf.reshape(tf.matmul(z[:, 0], tf.constant(MIX, tf.float32)), [-1, 3, 8, 8]), labels))
        return EasyDict(images=painted[-1][0], ws=z, updates=[])

    def judge(images, labels, training, streams):
        assert training
        judged.append((images, labels, streams.path))
        squares = tf.reduce_sum(tf.square(images) * tf.constant(WEIGHTS, tf.float32), axis=[1, 2, 3])
        return EasyDict(scores=0.1 * squares[:, tf.newaxis] + tf.matmul(labels, tf.constant([[1.0], [2.0], [3.0]])))

    shared = {"trainables": {"unused": tflib.get_variable("unused", [], None)}, "after_update_op": lambda: None}
    average = {"moving_average_op": lambda source, beta: tf.no_op()}
    G = SimpleNamespace(input_shapes=[(1, 8), (3,)], get_output_for=paint, **shared, **average)
    D = SimpleNamespace(input_shapes=[(3, 8, 8), (3,)], get_output_for=judge, **shared)
    dataset = ArrayDataset(classes=3)
    step = TrainingStep(G, D, G, config, dataset.labels, ["/cpu:0"])
    painted.clear()
    judged.clear()
    return step, dataset, painted, judged


def score_of(images, labels):
    """The same score for augmented images: the tests' augmentation halves them."""
    return 0.1 * np.sum((images / 2) ** 2 * WEIGHTS, axis=(1, 2, 3)) + labels @ [1, 2, 3]


@pytest.fixture
def halving(monkeypatch):
    monkeypatch.setattr(training_step, "augment", lambda images, config, streams: images / 2)


def second_round(step, dataset):
    """Feed of a batch's second round, and its real images and labels."""
    batch = batch_at(dataset, 0)
    return step._feed(batch, 1), batch.reals[4:].astype(np.float64) / 127.5 - 1, batch.labels[4:]


def test_the_losses_against_numpy(halving):
    with tflib.session_scope():
        config = small_training(mirror=False, pathreg=False, d_reg="non", bcr_real=2.0, bcr_fake=3.0)
        step, dataset, painted, judged = formula_step(config)
        feed, reals, labels = second_round(step, dataset)
        part = step._part(0)
        (g_loss, _, _), (d_loss, shown, _) = step._generator_loss(part), step._discriminator_loss(part)
        assert tf.gradients(d_loss, painted[1][0]) == [None]
        g_loss, d_loss, shown, painted = tflib.run([g_loss, d_loss, shown, painted], feed)
    assert len({path for _, _, path in judged}) == 5  # each with its own draws
    for images, drawn in painted:
        assert images.shape == (4, 3, 8, 8) and all(drawn.sum(axis=1) == 1)
    np.testing.assert_allclose(g_loss, np.logaddexp(0, -score_of(*painted[0])).mean(), rtol=1e-4)
    scores = {"fake": score_of(*painted[1]), "real": score_of(reals, labels)}
    plain = {"fake": score_of(2 * painted[1][0], painted[1][1]), "real": score_of(2 * reals, labels)}
    consistency = {name: np.mean((scores[name] - plain[name]) ** 2) for name in scores}
    expected = np.mean(np.logaddexp(0, scores["fake"]) + np.logaddexp(0, -scores["real"]))
    np.testing.assert_allclose(d_loss, expected + 3 * consistency["fake"] + 2 * consistency["real"], rtol=1e-4)
    np.testing.assert_allclose(shown["Loss/D"], expected, rtol=1e-4)
    for name in scores:
        np.testing.assert_allclose(shown[f"Scores/{name}"], scores[name].mean(), rtol=1e-4)
        np.testing.assert_allclose(shown[f"Regularizer/bcr_{name}"], consistency[name], rtol=1e-4)


def test_the_penalties_against_numpy(halving):
    """On reals (R1), fakes (R2) or points between them (gradient penalty), with the labels of the reals, fakes, reals."""
    with tflib.session_scope():
        step, dataset, painted, judged = formula_step(small_training(mirror=False, pathreg=False, d_reg="non"))
        feed, reals, labels = second_round(step, dataset)
        penalties = []
        for kind in ("r1", "r2", "gp"):
            step.config = dataclasses.replace(step.config, loss=LossConfig(d_reg=kind, gamma=6.0, d_reg_interval=3))
            penalties.append(step._discriminator_penalty(step._part(0))[:2])
        assert tf.gradients([value for value, _ in penalties], [images for images, _ in painted]) == [None, None]  # none for the generator
        penalties, painted, judged = tflib.run([penalties, painted, [given[:2] for given in judged]], feed)
    share = (2 * judged[2][0] - painted[1][0]) / (reals - painted[1][0])
    share = np.median(share, axis=(1, 2, 3))
    assert len(np.unique(share)) == 4 and all(share >= 0) and all(share <= 1)
    between = painted[1][0] + (reals - painted[1][0]) * share[:, np.newaxis, np.newaxis, np.newaxis]
    for index, (images, of) in enumerate([(reals, labels), painted[0], (between, labels)]):
        np.testing.assert_allclose(2 * judged[index][0], images, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(judged[index][1], of)
        squares = np.sum((0.05 * WEIGHTS * images) ** 2, axis=(1, 2, 3))  # of the score's gradient
        penalty = np.mean((np.sqrt(squares) - 1) ** 2) if index == 2 else np.mean(squares) / 2
        assert penalties[index][0] == pytest.approx(3 * 6 * penalty, rel=1e-3)
        assert list(penalties[index][1].values()) == pytest.approx([6 * penalty], rel=1e-3)


def test_the_path_length_penalty_against_numpy(monkeypatch):
    """Over half the images, around the moving average, which moves a hundredth of the way."""

    def lengths(images, ws, directions):
        assert images.shape.as_list() == [2, 3, 8, 8]
        return tf.constant([3.0, 5.0])

    monkeypatch.setattr(training_step.loss, "path_lengths", lengths)
    with tflib.session_scope():
        step, dataset, _, _ = formula_step(small_training(pathreg=False, d_reg="non", g_reg_weight=3.0, g_reg_interval=4))
        step.path_length_mean = 2.0
        value, shown, _ = step._path_length_penalty(step._part(0))
        value, shown = tflib.run([value, shown], second_round(step, dataset)[0])
        penalty = ((3 - 2) ** 2 + (5 - 2) ** 2) / 2
        assert value == 2 * 3 * 4 * penalty and shown == {"Regularizer/path_length": penalty, "Path/length": 4}
        assert step._track_path_length(shown)["Path/mean"] == step.path_length_mean == pytest.approx(2 + 0.01 * (4 - 2))


def test_labels_of_fakes_are_as_frequent_as_in_the_dataset():
    with tflib.session_scope():
        step, dataset, _, _ = formula_step(small_training(pathreg=False, d_reg="non"))
        labels = tflib.run(step._latents(tflib.RandomStreams(0, 0), 4000)[1])
    np.testing.assert_allclose(labels.mean(axis=0), dataset.labels.mean(axis=0), atol=0.04)
    assert set(labels.sum(axis=1)) == {1}


def test_wide_pictures_are_seen_without_their_padding():
    with tflib.session_scope():
        step, dataset, _, _ = formula_step(small_training(mirror=False, pathreg=False, d_reg="non"))
        step.D = SimpleNamespace(input_shapes=[(3, 4, 8), (3,)])
        feed, reals, _ = second_round(step, dataset)
        np.testing.assert_allclose(tflib.run(step._part(0).reals, feed), reals[:, :, 2:6], atol=1e-6)
