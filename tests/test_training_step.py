"""The stages of a step, one by one: what they change, what they leave, the same on any number of devices."""

import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from tests.training_standins import GANFORMER, ArrayDataset, small_networks, small_training
from training import step as training_step
from training.config import AugmentConfig
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
        unused = {key for key in trainable if key.endswith("_key") or key == "ltnt_emb/emb"}  # no part in k-means scores
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
@pytest.mark.parametrize("d_reg", ["r2", "gp", "non"])
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
    """Weights that are not finite for one step: what moves along with the updates (means, averages) is not spoilt for good."""
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
        statistics = {**stages["generator"].run(batch_at(dataset, 16)), **stages["path_length"].run(batch_at(dataset, 16))}
        assert step.totals["Skipped/G"] == 2 and np.isfinite(list(statistics.values())).all() and step.path_length_mean != mean


def test_a_loss_that_is_never_finite_ends_the_training(monkeypatch, capsys):
    """Counted for each loss: the good updates of the discriminator between them do not hide the regularizer's bad ones."""
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


@pytest.mark.parametrize("kind", ["none", "diffaug"])
def test_the_weights_of_the_regularizers(kind):
    """Lazy regularization multiplies by its interval; R1 has γ / 2, the path length 2 × --g-reg-weight (specification of the training).
    R1's gradient is that by the real images, whatever augmentation they pass."""
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
