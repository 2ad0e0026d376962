"""Network: variables, running, cloning, averaging; random streams."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from training.networks import DiscriminatorConfig, GeneratorConfig

SMALL = {"resolution": 16, "channel_base": 128, "channel_max": 16}


def small_generator(name="G", seed=0, **options):
    return tflib.Network(name, GeneratorConfig(z_dim=8, w_dim=8, **dict(SMALL, **options)), seed=seed)


def test_initial_values(graph):
    """Weights are N(0, 1/lrmul), biases zero; a function of the seed and the variable's name alone."""
    g = tflib.Network("G", GeneratorConfig(z_dim=64, w_dim=64, mapping_num_layers=2, **SMALL), seed=3)
    values = g.get_values()
    assert abs(values["G_synthesis/8x8/Conv1/weight"].std() - 1) < 0.05
    assert abs(values["G_mapping/Dense0/weight"].std() - 100) < 5
    assert not values["G_mapping/Dense0/bias"].any() and values["G_synthesis/8x8/Conv1/noise_strength"] == 0
    with tflib.session_scope():
        other = tflib.Network("other", GeneratorConfig(z_dim=64, w_dim=64, mapping_num_layers=2, **SMALL), seed=3)
        np.testing.assert_array_equal(other.get_values()["G_mapping/Dense0/weight"], values["G_mapping/Dense0/weight"])
    fresh = tflib.Network("G", GeneratorConfig(z_dim=64, w_dim=64, mapping_num_layers=2, **SMALL), seed=4)
    assert np.abs(fresh.get_values()["G_mapping/Dense0/weight"] - values["G_mapping/Dense0/weight"]).max() > 1


def test_a_configuration_of_no_architecture_is_refused(graph):
    with pytest.raises(ValueError, match="configuration of a network: got dict, expected one of GeneratorConfig, DiscriminatorConfig"):
        tflib.Network("G", dict(SMALL))


def test_same_picture_at_any_batch_size(graph):
    g = small_generator()
    g.set_values({name: 0.5 for name in g.variables if name.endswith("noise_strength")})
    z, seeds = np.random.RandomState(0).randn(5, 1, 8), np.arange(5) + 7
    whole = g.run(z, batch_size=5, seeds=seeds, noise_mode="random").images
    single = g.run(z, batch_size=1, seeds=seeds, noise_mode="random").images
    np.testing.assert_allclose(whole, single, atol=2e-5)
    other = g.run(z, batch_size=5, seeds=seeds + 1, noise_mode="random").images
    np.testing.assert_allclose(other[0], g.run(z[:1], seeds=seeds[:1] + 1, noise_mode="random").images[0], atol=2e-5)
    assert np.abs(whole - other).max() > 1e-2


def scores_of(network, images):
    """What the network gives for all images as one batch, without `run`."""
    return tflib.run(network.get_output_for(tf.constant(images, tf.float32), tf.zeros([len(images), 0])).scores)


@pytest.mark.parametrize("options", [{}, {"transformer": True, "a_dim": 8}])
def test_compared_images_stay_together_at_any_batch_size(graph, options):
    """Groups of the minibatch standard deviation are made of all images: sample n is in group n mod (N / 4)."""
    d = tflib.Network("D", DiscriminatorConfig(**options, **SMALL))
    images = np.random.RandomState(0).randn(12, 3, 16, 16) * np.arange(1, 13).reshape([12, 1, 1, 1])
    whole = scores_of(d, images)
    assert np.abs(whole[:8] - scores_of(d, images[:8])).max() > 1e-3  # the batch matters
    for batch_size in (1, 8, 12):
        np.testing.assert_allclose(d.run(images, batch_size=batch_size).scores, whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(d.run(images[:3], batch_size=2).scores, scores_of(d, images[:3]), rtol=1e-5, atol=1e-5)
    for count in (5, 6):
        with pytest.raises(UserError, match=f"got {count} images, accepted: up to 4, or a multiple of 4"):
            d.run(images[:count])
    assert d.run(images[:0]).scores.shape == (0, 1)


def test_run_checks_its_arguments(graph):
    g = small_generator()
    with pytest.raises(TypeError, match="psi"):
        g.run(np.zeros((1, 1, 8)), psi=0.5)
    with pytest.raises(ValueError, match=r"'z' got shape \[1, 8\]"):
        g.run(np.zeros((1, 8)))
    with pytest.raises(ValueError, match="noise_mode"):
        g.run(np.zeros((1, 1, 8)), noise_mode="some")
    assert g.run(np.zeros((0, 1, 8))).images.shape == (0, 3, 16, 16)


def test_labels_are_required_where_the_network_has_them(graph):
    g = small_generator(c_dim=4)
    with pytest.raises(ValueError, match="'labels' is missing"):
        g.run(np.zeros((1, 1, 8)))


def test_clone_and_moving_average(graph):
    g = small_generator(seed=1)
    gs = g.clone("Gs")
    start = gs.get_values()
    g.set_values({name: value + 1 for name, value in g.get_values().items()})
    beta = tf.placeholder(tf.float32, [])
    tflib.run(gs.moving_average_op(g, beta), {beta: 0.75})
    after, target = gs.get_values(), g.get_values()
    for name in gs.variables:
        expected = 0.75 * start[name] + 0.25 * target[name] if name in gs.trainables else target[name]
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_two_networks_do_not_share_variables(graph):
    first, second = small_generator("G"), small_generator("G")
    assert first.scope != second.scope
    first.set_values({"dlatent_avg": np.ones(8)})
    assert not second.get_values()["dlatent_avg"].any()


def test_parts_make_the_whole(graph):
    g = small_generator(components_num=2, transformer=True)
    z = np.random.RandomState(0).randn(2, 3, 8)
    whole = g.run(z, truncation_psi=0.5, return_ws=True, return_maps=True)
    ws = g.run_part("mapping", z, truncation_psi=0.5).ws
    np.testing.assert_allclose(ws, whole.ws, atol=1e-6)
    part = g.run_part("synthesis", ws, return_maps=True)
    np.testing.assert_allclose(part.images, whole.images, atol=1e-5)
    np.testing.assert_allclose(part.maps, whole.maps, atol=1e-5)


def test_truncation(graph):
    """ψ pulls every w toward the average, all layers or those below the cutoff."""
    g = small_generator(components_num=2, transformer=True)
    average = np.arange(8) / 10
    g.set_values({"dlatent_avg": average})
    z = np.random.RandomState(0).randn(2, 3, 8)
    ws = g.run_part("mapping", z).ws
    np.testing.assert_allclose(g.run_part("mapping", z, truncation_psi=0.3).ws, average + 0.3 * (ws - average), atol=1e-6)
    cut = g.run_part("mapping", z, truncation_psi=0.3, truncation_cutoff=2).ws
    np.testing.assert_allclose(cut[:, :, 2:], ws[:, :, 2:], atol=1e-6)
    np.testing.assert_allclose(cut[:, :, :2], (average + 0.3 * (ws - average))[:, :, :2], atol=1e-6)


def test_layer_table(graph):
    d = tflib.Network("D", DiscriminatorConfig(**SMALL))
    lines = d.layer_table()
    trainable, stored = d.parameter_count()
    assert lines[0].split() == ["layer", "output", "weight", "parameters"]
    assert f"{trainable:,}" in lines[-1] and f"{stored:,} stored" in lines[-1]
    rows = {line.split()[0]: line for line in lines}
    assert "[None, 16, 16, 16]" in rows["16x16/Conv0"] and "[3, 3, 16, 16]" in rows["16x16/Conv0"] and "2,320" in rows["16x16/Conv0"]


def test_random_streams_are_functions_of_seed_name_and_step(graph):
    def draw(seed, step, name):
        return tflib.run(tflib.RandomStreams(seed, step).child("a").normal(name, [4, 3]))

    base = draw(1, 5, "z")
    np.testing.assert_array_equal(base, draw(1, 5, "z"))
    for other in (draw(2, 5, "z"), draw(1, 6, "z"), draw(1, 5, "y")):
        assert np.abs(base - other).min() > 0
    step = tf.placeholder(tf.int64, [])
    fed = tflib.RandomStreams(1, step).child("a").normal("z", [4, 3])
    np.testing.assert_array_equal(tflib.run(fed, {step: 5}), base)


def test_per_image_streams_depend_on_the_seed_alone(graph):
    seeds = tf.placeholder(tf.int64, [None])
    drawn = tflib.PerImageStreams(seeds).normal("noise", [tf.shape(seeds)[0], 4, 4])
    many, one = tflib.run(drawn, {seeds: [3, 9, 4]}), tflib.run(drawn, {seeds: [9]})
    np.testing.assert_array_equal(many[1], one[0])
    assert np.abs(many[0] - many[2]).min() > 0
