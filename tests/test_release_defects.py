"""One test for every known defect of the public release (docs/differences.md): each fails with the old behaviour."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from training.loss import generator_loss
from training.networks import DiscriminatorConfig, GeneratorConfig, vocabulary

SMALL = {"resolution": 16, "channel_base": 128, "channel_max": 8}


def generator(**options):
    return tflib.Network("G", GeneratorConfig(**dict({"z_dim": 8, "w_dim": 8}, **dict(SMALL, **options))))


def latents(network, count=3, seed=0):
    return np.random.RandomState(seed).randn(count, *network.input_shapes[0])


def matters(network, pattern, run):
    """Whether changing the variables whose names contain `pattern` changes the result of run()."""
    names = [name for name in network.variables if pattern in name]
    assert names, pattern
    before, values = run(), network.get_values()
    rng = np.random.RandomState(1)
    network.set_values({name: values[name] + rng.randn(*values[name].shape) for name in names})
    after = run()
    network.set_values(values)
    return np.abs(after - before).max() > 1e-5


def test_sagan_has_self_attention_in_both_layers_of_its_scale(graph):
    g = generator(style=False, latent_stem=True, img2img=3)
    z = latents(g)
    for layer in ("8x8/Conv0_up", "8x8/Conv1"):
        assert matters(g, f"{layer}/AttLayer_n2n/weight_out", lambda: g.run(z).images)
    assert not any("AttLayer" in name and "8x8" not in name for name in g.variables)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("layer", [-1, 2, 4])
def test_kgan_with_every_architecture_and_merge_layer(graph, architecture, layer):
    """Every image of a sample contributes, and one sample's images do not affect the others."""
    g = generator(merge=True, components_num=3, merge_layer=layer, architecture=architecture)
    z = latents(g, count=2)
    base = g.run(z).images
    for component in range(3):
        changed = z.copy()
        changed[0, component] += 1
        images = g.run(changed).images
        assert np.abs(images[0] - base[0]).max() > 1e-4
        np.testing.assert_allclose(images[1], base[1], atol=1e-5)


def test_iterative_attention_carries_its_assignments(graph):
    """Later layers take their centroids from the layer before, so the first layer's assignments matter to the last."""
    g = generator(transformer=True, components_num=3, kmeans=True, iterative=True, norm="layer", integration="mul")
    z = latents(g)
    assert matters(g, "4x4/Conv/AttLayer_l2n/weight_key2", lambda: g.run(z, return_maps=True).maps[:, :, -1])
    assert [name for name in g.variables if name.endswith("weight_key2")] == ["G_synthesis/4x4/Conv/AttLayer_l2n/weight_key2"]
    assert not any("toasgn_init" in name for name in g.variables)


@pytest.mark.parametrize("options", [
    {}, {"transformer": True, "components_num": 2, "mapping_resnet": True, "mapping_ltnt2ltnt": True}, {"mapping_dim": 12},
    {"transformer": True, "components_num": 2, "mapping_shared_dim": 12},
])  # fmt: skip
def test_labels_condition_every_component(graph, options):
    g = generator(c_dim=4, **options)
    z = latents(g, count=4)
    images = [g.run(z, np.eye(4)[[label] * 4], return_ws=True) for label in (0, 2)]
    assert images[0].ws.shape[1] == g.config.inputs_num  # the label does not add a component
    assert (np.abs(images[0].ws - images[1].ws).max(axis=(2, 3)) > 1e-4).all()
    assert np.abs(images[0].images - images[1].images).max() > 1e-4


@pytest.mark.parametrize("baseline", [{}, {"style": False, "latent_stem": True}, {"merge": True, "components_num": 3, "merge_layer": 3}])
def test_baselines_in_the_newer_vocabulary(graph, baseline):
    arguments = dict({"resolution": 16, "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "mapping_num_layers": 2}, **baseline)
    config, notes = vocabulary.parse(arguments, GeneratorConfig, None)
    assert not notes and config.mapping_num_layers == 2
    g = tflib.Network("G", config)
    assert np.isfinite(g.run(latents(g)).images).all()


def test_dropout_is_off_at_inference(graph):
    g = generator(transformer=True, components_num=4, component_dropout=0.5, attention_dropout=0.5)
    d = tflib.Network("D", DiscriminatorConfig(transformer=True, a_dim=8, attention_dropout=0.5, **SMALL))
    z, images = latents(g), np.random.RandomState(0).uniform(-1, 1, (4, 3, 16, 16))
    np.testing.assert_array_equal(g.run(z).images, g.run(z).images)
    np.testing.assert_array_equal(d.run(images).scores, d.run(images).scores)
    step = tf.placeholder(tf.int64, [])
    streams = tflib.RandomStreams(0, step)
    real = tf.constant(images, tf.float32)
    trained = d.get_output_for(real, tf.zeros([4, 0]), training=True, streams=streams).scores
    assert np.abs(tflib.run(trained, {step: 1}) - tflib.run(trained, {step: 2})).max() > 1e-6  # and it is on in training


def test_hinge_rewards_the_generator_for_high_scores(graph):
    scores = tf.constant([[-2.0], [0.5], [3.0]])
    np.testing.assert_array_equal(tflib.run(generator_loss("hinge", scores)), [[2.0], [-0.5], [-3.0]])


def test_both_latent_updates_follow_one_another(graph):
    g = generator(transformer=True, components_num=3, ltnt2ltnt=True, img2ltnt=True)
    z = latents(g)
    for update in ("AttLayer_l2l/weight_out", "AttLayer_n2l/weight_out"):
        assert matters(g, f"4x4/Conv/{update}", lambda: g.run(z).images)
