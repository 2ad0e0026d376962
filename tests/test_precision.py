"""--precision mixed: what is computed in 16 bits, how far it is from float32, loss scaling, training with it."""

import collections

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from dnnlib.tflib import optimizer as optimizer_module
from dnnlib.tflib import setup
from dnnlib.tflib.optimizer import FIRST_LOSS_SCALE, Optimizer
from tests.cli_helpers import SMALL, finish, write_raw_dataset
from tests.test_training_loop import assert_same_state, train
from tests.training_standins import GANFORMER, small_training
from training import training_state
from training.networks import DiscriminatorConfig, GeneratorConfig, layers

HALVES = [tf.float16] if tf.__version__.startswith("1.") else [tf.bfloat16, tf.float16]
PICTURES = {"resolution": 64, "channel_base": 512, "channel_max": 32}
CONVOLUTIONS = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")


def networks(architecture):
    attention = {"transformer": architecture == "resnet", "components_num": 4 if architecture == "resnet" else 1}
    generator = GeneratorConfig(
        **PICTURES, z_dim=16, w_dim=16, architecture=architecture, kmeans=True, norm="layer", integration="mul", **attention
    )
    discriminator = DiscriminatorConfig(**PICTURES, architecture=architecture, ltnt2img=True, a_dim=16, **attention)
    return tflib.Network("G", generator), tflib.Network("D", discriminator)


def relative_rms(value, expected):
    return np.sqrt(np.mean((value - expected) ** 2) / np.mean(expected**2))


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_outputs_are_close_to_float32(architecture):
    with tflib.session_scope(optimize=False):
        G, D = networks(architecture)
        z = tf.constant(np.random.RandomState(0).standard_normal([4, *G.input_shapes[0]]), tf.float32)
        labels = tf.zeros([4, 0])
        images = [G.get_output_for(z, labels, half=kind).images for kind in (None, *HALVES)]
        scores = [D.get_output_for(images[0], labels, half=kind).scores for kind in (None, *HALVES)]
        assert {output.dtype for output in (*images, *scores)} == {tf.float32}
        outputs = tflib.run([images, scores])
    for full, *halves in outputs:
        assert all(0 < relative_rms(half, full) < 0.02 for half in halves)


def test_the_type_is_the_one_that_the_device_is_good_at(monkeypatch):
    for device, half in (("/cpu:0", HALVES[0]), ("/gpu:0", tf.float16)):
        monkeypatch.setattr(setup, "devices", lambda device=device: [device])
        assert tflib.half_type() == half


def test_only_float16_is_clamped():
    """At 256: float16 ends at 65504, while bfloat16 has the range of float32."""
    with tflib.session_scope():
        for dtype, limit in ((tf.float16, 256), (tf.bfloat16, 1000), (tf.float32, 1000)):
            with tf.variable_scope(dtype.name):
                high = layers.bias_act(tf.fill([1, 2, 2, 3], tf.cast(1000, dtype)), "linear")
            tflib.run(tf.global_variables_initializer())
            assert tflib.run(tf.reduce_max(tf.cast(high, tf.float32))) == limit


@pytest.mark.parametrize("half", HALVES, ids=lambda half: half.name)
def test_the_four_highest_resolutions_and_no_others(half):
    with tflib.session_scope():
        G, D = networks("skip")
        before = set(tf.get_default_graph().get_operations())
        images = G.get_output_for(tf.zeros([1, *G.input_shapes[0]]), tf.zeros([1, 0]), half=half).images
        D.get_output_for(images, tf.zeros([1, 0]), half=half)
        found = collections.defaultdict(set)
        for op in set(tf.get_default_graph().get_operations()) - before:
            if op.type in CONVOLUTIONS:
                [scale] = [part for part in op.name.split("/") if part.split("x")[0].isdigit()]
                found[int(scale.split("x")[0])].add(op.outputs[0].dtype)
    assert found == {4: {tf.float32}, 8: {half}, 16: {half}, 32: {half}, 64: {half}}


@pytest.mark.parametrize("resolution, scales", [(8, [3]), (64, [3, 4, 5, 6]), (512, [6, 7, 8, 9])])
def test_scales_of_other_resolutions(resolution, scales):
    config = GeneratorConfig(resolution=resolution)
    assert [r for r in config.scales if config.half_precision(r)] == scales


def test_large_float16_features_do_not_overflow():
    """For styles of any size, the scaled features of a modulated convolution stay below float16's largest number."""
    with tflib.session_scope(optimize=False):
        G, _ = networks("skip")
        values = G.get_values()
        large = {name: value + 1000 for name, value in values.items() if name.endswith("Conv1/mod_bias")}
        G.set_values({**values, **large})
        z, labels = tf.ones([2, *G.input_shapes[0]]), tf.zeros([2, 0])
        images, mixed = tflib.run([G.get_output_for(z, labels, half=half).images for half in (None, tf.float16)])
    assert relative_rms(mixed, images) < 0.02


def make_scaled(rounds=1):
    with tf.variable_scope("net"):
        variable = tflib.get_variable("a", [3], lambda rng, shape: np.zeros(shape))
    tflib.run(variable.initializer)
    variables = collections.OrderedDict([("a", variable)])
    return variable, Optimizer("G_opt", variables, 0.1, 0.0, 0.99, 1e-8, rounds=rounds, loss_scaling=True)


def test_loss_scaling_keeps_what_float16_would_lose():
    with tflib.session_scope():
        variable, optimizer = make_scaled()
        small = tf.cast(variable, tf.float16) * tf.constant(1e-6, tf.float16)  # times 0.01: below float16's smallest number
        _, finish = optimizer.build([tf.cast(tf.reduce_sum(small), tf.float32) * 1e-2], ["/cpu:0"])
        norm = tflib.run(finish)[0]
        assert norm == pytest.approx(np.sqrt(3) * 1e-8, rel=0.1)
        plain = Optimizer("plain", optimizer.variables, 0.1, 0.0, 0.99, 1e-8)
        _, finish = plain.build([tf.cast(tf.reduce_sum(small), tf.float32) * 1e-2], ["/cpu:0"])
        assert tflib.run(finish)[0] != pytest.approx(np.sqrt(3) * 1e-8, rel=0.1)


@pytest.mark.parametrize("rounds", [1, 2])
def test_loss_scale_falls_and_rises(monkeypatch, rounds):
    monkeypatch.setattr(optimizer_module, "LOSS_SCALE_UPDATES", 3)
    with tflib.session_scope():
        variable, optimizer = make_scaled(rounds)
        gradient = tf.placeholder(tf.float32, [])
        accumulate, finish = optimizer.build([tf.reduce_sum(variable) * gradient], ["/cpu:0"])

        def update(value):
            if accumulate is None:
                return tflib.run(finish, {gradient: value})
            for _ in range(rounds):
                tflib.run(accumulate, {gradient: value})
            return tflib.run(finish)

        scale = optimizer.state["loss_scale"]
        assert tflib.run(scale) == FIRST_LOSS_SCALE
        assert update(1.0)[0] == pytest.approx(np.sqrt(3))
        before = tflib.run(variable)
        assert not update(1e38)[2] and tflib.run(scale) == FIRST_LOSS_SCALE / 2
        np.testing.assert_array_equal(tflib.run(variable), before)
        assert update(1.0)[2] and tflib.run(scale) == FIRST_LOSS_SCALE / 2
        update(1.0)
        assert tflib.run(scale) == FIRST_LOSS_SCALE


@pytest.mark.slow
def test_exact_continuation(tmp_path):
    """Also, float32 may take over, which makes a difference."""
    config = small_training(total_kimg=0.048, tick_kimg=0.008, precision="mixed")
    states = []

    def keep(Gs, path, run_dir):
        states.append(training_state.load_latest(run_dir)[0])
        return {}

    whole = train(tmp_path / "whole", config, generator=GANFORMER, evaluate=keep)
    assert_same_state(whole, train(tmp_path / "parts", config, generator=GANFORMER, state=states[0]))
    plain = train(tmp_path / "plain", small_training(total_kimg=0.048, tick_kimg=0.008), generator=GANFORMER, state=states[0])
    assert any(not np.array_equal(whole.arrays[name], array) for name, array in plain.arrays.items())


@pytest.mark.slow
def test_command_line(tmp_path):
    write_raw_dataset(tmp_path)
    flags = ["--data-dir", tmp_path, "--dataset", "blobs", "--result-dir", tmp_path / "results", *SMALL, "--train", "--total-kimg", "0.064"]
    code, out, err = finish(*flags, "--precision", "mixed")
    assert code == 0, err
    assert f"mixed precision: {tflib.half_type().name} " in out
