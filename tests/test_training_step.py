"""The stages of a step, one by one: what they change, what they leave, the same on any number of devices."""

import numpy as np
import pytest

from dnnlib import tflib
from tests.training_standins import GANFORMER, ArrayDataset, small_networks, small_training
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
        unused = {key for key in trainable if key.endswith("_key") or key == "ltnt_emb/emb"}  # networks.md: no part in k-means scores
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
