"""Options of the networks, alone and in random combinations: the networks build, learn, save and load; impossible options are refused."""

import importlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from tests.conftest import LONG, half_of
from tests.test_release_defects import matters
from training.loss import discriminator_loss, generator_loss, path_lengths, squared_gradient
from training.networks import DiscriminatorConfig, GeneratorConfig, ViTGANGeneratorConfig

synthesis = importlib.import_module("training.networks.synthesis")  # its function has the same name

COMBINATIONS = 60 if LONG else 20
BATCH = 4
SHARED = {"resolution": 16, "channel_base": 128, "channel_max": 8}

GENERATOR_CHOICES = {
    "architecture": ["skip", "resnet", "orig"],
    "tanh": [False, True],
    "style": [True, True, False],
    "latent_stem": [False, True],
    "local_noise": [True, True, False],
    "mapping_num_layers": [2, 3],
    "mapping_dim": [None, None, 12],
    "mapping_resnet": [False, True],
    "mapping_shared_dim": [None, None, 10],
    "mapping_ltnt2ltnt": [False, True],
    "norm": [None, "layer", "instance", "batch"],
    "integration": ["add", "mul", "both"],
    "num_heads": [1, 2],
    "kmeans": [False, True],
    "kmeans_iters": [1, 2],
    "iterative": [False, True],
    "ltnt_gate": [False, True],
    "img_gate": [False, True],
    "ltnt2ltnt": [False, True],
    "img2ltnt": [False, True],
    "img2img": [0, 0, 3],
    "start_res": [0, 3],
    "end_res": [4, 20],
    "use_pos": [False, True],
    "pos_type": ["sinus", "linear", "trainable", "trainable2d"],
    "pos_init": ["uniform", "normal"],
    "pos_dim": [None, 16],
    "pos_directions_num": [2, 4],
    "component_mixing": [0.0, 0.5],
    "component_dropout": [0.0, 0.3],
    "c_dim": [0, 0, 3],
    "num_channels": [3, 3, 1, 4],
    "merge_type": ["softmax", "sum", "max", "leaves"],
    "merge_layer": [-1, 2, 3, 4],
    "merge_same": [False, True],
}
DISCRIMINATOR_CHOICES = {
    "architecture": ["resnet", "skip", "orig"],
    "transformer": [False, True],
    "components_num": [1, 3],
    "num_heads": [1, 2],
    "ltnt2img": [False, True],
    "ltnt2ltnt": [False, True],
    "img2img": [0, 0, 3],
    "ltnt_gate": [False, True],
    "img_gate": [False, True],
    "use_pos": [False, True],
    "pos_type": ["sinus", "linear", "trainable", "trainable2d"],
}


def random_configs(index):
    """The index-th combination: (GeneratorConfig, DiscriminatorConfig), both valid."""
    rng = np.random.RandomState(index)
    g = {name: values[rng.randint(len(values))] for name, values in GENERATOR_CHOICES.items()}
    d = {name: values[rng.randint(len(values))] for name, values in DISCRIMINATOR_CHOICES.items()}
    kind = ["transformer", "merge", None][rng.randint(3)]
    g.update(transformer=kind == "transformer", merge=kind == "merge", components_num=3 if kind else [1, 3][rng.randint(2)])
    g["latent_stem"] = g["latent_stem"] or not g["style"]
    both = {name: g[name] for name in ("c_dim", "num_channels")}
    return GeneratorConfig(z_dim=8, w_dim=8, **g, **SHARED), DiscriminatorConfig(a_dim=8, **d, **both, **SHARED)


def attention_scopes(c):
    """Scopes of the layers that attend to the latents, first to last."""
    if not c.transformer:
        return []
    names = [(r, name) for r in c.scales for name in (["Conv"] if r == 2 else ["Conv0_up", "Conv1"])]
    return [f"G_synthesis/{2**r}x{2**r}/{name}/" for r, name in names if c.attends(r)]


def unused_in_generator(name, c):
    """Why a stored trainable variable of the generator does not affect any output, or None."""
    local = name.split("/", 1)[-1]
    layers = attention_scopes(c)
    attended = {r for r in c.scales if c.transformer and c.start_res <= r < c.end_res or r == c.img2img}
    keys = ("_key", "_to_pos")
    reads_keys = layers[:1] if c.iterative else []
    if name == "ltnt_emb/emb" and not (c.use_pos and (layers or c.self_attention_in_mapping)):
        return "positions of the latents are stored in every model and used by attention alone"
    if "_map_pos" in name and not c.self_attention_in_mapping:
        return "the mapping's positions are stored with use_pos and used by its attention alone"
    if local.startswith("pos_emb") and int(local[7 : local.index("/")]) not in attended:
        return "positions of every grid are stored, those with attention are used"
    if "/mod_" in name and not c.style:
        return "without style nothing is modulated"
    if "G_mapping/global" in name and not (c.style or c.latent_stem):
        return "the global latent modulates or makes the stem"
    if c.kmeans and "AttLayer_l2n" in name and name.endswith(keys) and not name.startswith(tuple(reads_keys)):
        return "duplex attention computes the keys and does not use them (centroids take their place)"
    if layers and name.startswith(layers[-1]) and ("l2l" in name or "n2l" in name):
        return "the last layer's update of the latents has no reader"
    if c.merge and c.merge_type == "sum" and "/merge" in name:
        return "the sum weighs every image by one"
    return None


def unused_in_discriminator(name, c):
    """Why a stored trainable variable of the discriminator does not affect any output, or None."""
    attended = {r for r in c.scales if c.transformer and c.start_res <= r < c.end_res or r == c.img2img}
    if name.startswith("pos_emb") and int(name[7 : name.index("/")]) not in attended:
        return "positions of every grid are stored, those with attention are used"
    return None


def losses_of(g, d):
    """Losses with their regularizers, as in training: (generator's, discriminator's)."""
    rng = np.random.RandomState(0)
    streams = tflib.RandomStreams(0, 1)
    z = tf.constant(rng.randn(BATCH, *g.input_shapes[0]), tf.float32)
    labels = tf.one_hot(np.arange(BATCH) % max(g.config.c_dim, 1), g.config.c_dim)
    reals = tf.constant(rng.uniform(-1, 1, [BATCH] + list(d.input_shapes[0])), tf.float32)
    fakes = g.get_output_for(z, labels, training=True, streams=streams, noise_mode="random")
    fake_scores = d.get_output_for(fakes.images, labels, training=True, streams=streams.child("fake")).scores
    real_scores = d.get_output_for(reals, labels, training=True, streams=streams.child("real")).scores
    noise = streams.normal("path", tf.shape(fakes.images))
    path = tf.square(path_lengths(fakes.images, fakes.ws, noise) - 0.5)
    g_loss = tf.reduce_mean(generator_loss("logistic_ns", fake_scores)) + 0.1 * tf.reduce_mean(path)
    d_loss = tf.reduce_mean(discriminator_loss("logistic", fake_scores, real_scores))
    return g_loss, d_loss + tf.reduce_mean(squared_gradient(real_scores, reals)), [v.assign(value) for v, value in fakes.updates]


def descend(network, loss, explain):
    """Update operations of one gradient step; every variable must have a gradient or a reason for not having one."""
    gradients = tf.gradients(loss, list(network.trainables.values()))
    steps = []
    for (name, variable), gradient in zip(network.trainables.items(), gradients):
        reason = explain(name, network.config)
        assert (gradient is None) == (reason is not None), f"{name}: gradient {gradient}, reason {reason}"
        if gradient is not None:
            steps.append(variable.assign_sub(1e-3 * gradient))
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("index", half_of(range(COMBINATIONS)))
def test_random_combination(tmp_path, index):
    path = str(tmp_path / "s.pkl")
    g_config, d_config = random_configs(index)
    rng = np.random.RandomState(index)
    z, images = rng.randn(BATCH, g_config.inputs_num, 8), rng.uniform(-1, 1, (BATCH, g_config.num_channels, 16, 16))
    labels = np.eye(max(g_config.c_dim, 1))[np.arange(BATCH) % max(g_config.c_dim, 1)][:, : g_config.c_dim]
    with tflib.session_scope(optimize=False):
        g, d = tflib.Network("G", g_config), tflib.Network("D", d_config)
        g_loss, d_loss, updates = losses_of(g, d)
        steps = descend(g, g_loss, unused_in_generator) + descend(d, d_loss, unused_in_discriminator)
        losses = tflib.run([g_loss, d_loss, steps, updates])[:2]
        assert np.isfinite(losses).all()
        for network in (g, d):
            assert all(np.isfinite(value).all() for value in network.get_values().values())
        out = g.run(z, labels, return_maps=True)
        scores = d.run(images, labels).scores
        assert np.isfinite(out.images).all() and np.isfinite(scores).all()
        assert out.images.shape == images.shape and scores.shape == (BATCH, 1)
        assert np.abs(out.images - out.images[:1])[1:].max() > 0  # other latents, other pictures
        tflib.save_snapshot(path, (g, d, g))
    with tflib.session_scope(optimize=False):
        g, d, _ = tflib.load_snapshot(path)
        np.testing.assert_array_equal(g.run(z, labels).images, out.images)
        np.testing.assert_array_equal(d.run(images, labels).scores, scores)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"components_num": 3, "transformer": True, "merge": True}, "merge: got True"),
        ({"transformer": True, "num_heads": 3}, "num_heads"),
        ({"resolution": 24}, "power of two"),
        ({"style": False}, "style"),
        ({"architecture": "dense"}, "orig, skip, resnet"),
        ({"integration": "sub"}, "add, mul, both"),
        ({"norm": "group"}, "batch, instance, layer"),
        ({"pos_type": "fourier"}, "linear, sinus, trainable, trainable2d"),
        ({"pos_dim": 6, "transformer": True}, "multiple of 4"),
        ({"pos_dim": 6, "img2img": 2}, "multiple of 4"),
        ({"channel_base": 4}, "channel_base: got 4, accepted: 8 or more at 16 pixels"),
        ({"img2img": 7}, "2 to 4"),
        ({"img2img": 3, "num_heads": 3}, "num_heads: got 3, accepted: a divisor of the channels at 8x8 [(]8[)]"),
        ({"transformer": True, "img2ltnt": True, "num_heads": 8, "w_dim": 12}, "a divisor of w_dim [(]12[)]"),
        ({"mapping_resnet": True, "mapping_ltnt2ltnt": True, "num_heads": 8, "mapping_dim": 12}, "a divisor of mapping_dim [(]12[)]"),
        ({"transformer": True, "pos_type": "linear", "pos_dim": 6, "pos_directions_num": 4}, "a multiple of 4 for pos_type linear"),
        ({"transformer": True, "pos_type": "trainable", "pos_dim": 7}, "an even number for pos_type trainable"),
        ({"merge": True, "components_num": 2, "merge_layer": 9}, "2 to 4"),
        ({"merge": True, "components_num": 2, "merge_type": "mean"}, "softmax"),
        ({"mapping_resnet": True, "mapping_num_layers": 1}, "2 or more"),
        ({"mapping_resnet": True, "z_dim": 16}, "mapping_dim"),
        ({"mapping_lrmul": 0}, "mapping_lrmul: got 0, accepted: 1e-08 or more"),
        ({"resample_kernel": [1, -1]}, "resample_kernel: got .*, accepted: numbers with a sum other than 0"),
        ({"resample_kernel": []}, "resample_kernel"),
        ({"resample_kernel": [1, float("inf")]}, "resample_kernel"),
        ({"attention_dropout": 2.5}, "attention_dropout: got 2.5, accepted: 0 to 1"),
        ({"style_mixing": float("nan")}, "style_mixing: got nan"),
    ],
)
def test_impossible_combinations_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        GeneratorConfig(**dict({"z_dim": 8, "w_dim": 8}, **dict(SHARED, **options)))


def test_impossible_discriminators_are_refused():
    with pytest.raises(UserError, match="multiple of 4"):
        DiscriminatorConfig(a_dim=8, transformer=True, pos_dim=6, **SHARED)
    with pytest.raises(UserError, match="a divisor of a_dim [(]12[)]"):
        DiscriminatorConfig(a_dim=12, transformer=True, num_heads=8, **SHARED)
    DiscriminatorConfig(a_dim=12, transformer=True, num_heads=3, **SHARED)  # only the grid's self-attention needs its channels divided
    with pytest.raises(UserError, match="a divisor of the channels at 16x16"):
        DiscriminatorConfig(a_dim=12, transformer=True, num_heads=3, ltnt2img=True, **SHARED)


def test_heads_divide_the_width_of_latents_only_if_these_attend():
    GeneratorConfig(**dict(SHARED, z_dim=12, w_dim=12, pos_dim=8, transformer=True, num_heads=8))


@pytest.mark.parametrize("resolution, ratio, grid", [(512, 0.5, (256, 512)), (512, 0.51, (512, 512)), (256, 0.5, (256, 256))])
def test_padding_of_half_the_picture_is_left_out_above_256(resolution, ratio, grid):
    assert GeneratorConfig(resolution=resolution, crop_ratio=ratio).grid(resolution.bit_length() - 1) == grid


@pytest.mark.parametrize("config_class, options, grids, maps", [
    (GeneratorConfig, {"transformer": True, "components_num": 3, "num_heads": 2}, [4, 8, 8, 16, 16], 5 * 3 * 2),
    (GeneratorConfig, {"transformer": True, "components_num": 3, "start_res": 3, "end_res": 4}, [8, 8], 2 * 3),
    (GeneratorConfig, {}, [], 0),
    (ViTGANGeneratorConfig, {"dim": 24, "heads": 2, "depth": 3, "patch": 8}, [2, 2, 2], 3 * 4 * 2),
])  # fmt: skip
def test_maps_are_counted_before_they_are_made(config_class, options, grids, maps):
    """One per layer, component (token) and head; the visualizations use the count to plan their memory."""
    config = config_class(resolution=16, **options)
    assert config.attention_grids == grids and config.maps_num == maps


SIDES = {  # scope of an attention: what attends (`from`, gate n), what is attended to (`to`, gate e)
    "G_mapping/AttLayer_0": ("ltnt", "ltnt"), "8x8/Conv1/AttLayer_l2n": ("img", "ltnt"), "8x8/Conv1/AttLayer_l2l": ("ltnt", "ltnt"),
    "8x8/Conv1/AttLayer_n2l": ("ltnt", "img"), "8x8/Conv1/AttLayer_n2n": ("img", "img"), "8x8/AttLayer_n2l": ("ltnt", "img"),
    "8x8/AttLayer_l2n": ("img", "ltnt"), "8x8/AttLayer_l2l": ("ltnt", "ltnt"), "8x8/AttLayer_n2n": ("img", "img"),
}  # fmt: skip


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("gate", ["ltnt", "img"])
def test_gates_and_positions_stand_on_their_side(gate):
    """Gates follow their switch; the grid always has positions, latents only with use_pos (specification, sections 2, 3 and 5)."""
    use_pos = gate == "ltnt"
    shared = {"resolution": 8, "channel_base": 32, "channel_max": 8, "transformer": True, "components_num": 2, "img2img": 3,
              "ltnt2ltnt": True, "use_pos": use_pos, f"{gate}_gate": True}  # fmt: skip
    g = GeneratorConfig(z_dim=8, w_dim=8, img2ltnt=True, mapping_num_layers=2, mapping_resnet=True, mapping_ltnt2ltnt=True, **shared)
    names = [*tflib.Network("G", g).variables, *tflib.Network("D", DiscriminatorConfig(a_dim=8, ltnt2img=True, **shared)).variables]
    for scope, sides in SIDES.items():
        scope = f"G_synthesis/{scope}" if "Conv1" in scope else scope
        assert [f"{scope}/weight_{gate_name}_cont" in names for gate_name in "ne"] == [side == gate for side in sides], scope
        assert [f"{scope}/weight_{way}_pos" in names for way in ("from", "to")] == [side == "img" or use_pos for side in sides], scope


@pytest.mark.usefixtures("graph")
def test_order_of_the_discriminator_s_attentions():
    """n2l, l2n, l2l, n2n; the features pass through them, the shortcut bypasses them (specification, section 5)."""
    d = tflib.Network("D", DiscriminatorConfig(
        resolution=8, channel_base=32, channel_max=8, transformer=True, components_num=2, a_dim=8, ltnt2img=True, ltnt2ltnt=True, img2img=3,
    ))  # fmt: skip
    images, values = np.random.RandomState(0).randn(4, 3, 8, 8), d.get_values()

    def takes_part(attention):
        return matters(d, f"8x8/AttLayer_{attention}/weight_out", lambda: d.run(images).scores)

    assert all(takes_part(attention) for attention in ("n2l", "l2n", "l2l", "n2n"))
    d.set_values({name: 0 * values[name] for name in values if name.startswith("8x8/Conv0/")})  # only the aggregators' scores are left
    assert [takes_part(attention) for attention in ("n2l", "l2n", "l2l", "n2n")] == [True, False, True, False]
    d.set_values({**values, "ComponentScores/Output/weight": 0 * values["ComponentScores/Output/weight"]})  # only the grid's are left
    assert [takes_part(attention) for attention in ("n2l", "l2n", "l2l", "n2n")] == [True, True, False, True]


@pytest.mark.usefixtures("graph")
def test_latents_attend_to_each_other_before_the_grid(monkeypatch):
    calls, block = [], synthesis.residual_attention_block

    def recorded(x, y, *args, **kwargs):
        result = block(x, y, *args, **kwargs)
        calls.append((kwargs["name"], x, y, result))
        return result

    monkeypatch.setattr(synthesis, "residual_attention_block", recorded)
    tflib.Network("G", GeneratorConfig(z_dim=8, w_dim=8, transformer=True, components_num=2, ltnt2ltnt=True, img2ltnt=True, **SHARED))
    assert [name for name, *_ in calls] == ["l2l", "n2l"] * 5
    assert all(x is y for name, x, y, _ in calls if name == "l2l")
    assert all(call[1] is before[3] for before, call in zip(calls, calls[1:]))


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize(
    "options",
    [
        {"z_dim": 18, "w_dim": 18, "ltnt2ltnt": True, "num_heads": 4},
        {"z_dim": 6, "w_dim": 6, "merge": True, "components_num": 3, "pos_directions_num": 5},
        {"z_dim": 6, "w_dim": 8, "merge": True, "components_num": 3, "mapping_resnet": True, "mapping_shared_dim": 10},
    ],
)
def test_what_a_network_does_not_have_does_not_forbid_it(options):
    """No positions, whose width would not divide; no heads, which would not divide a width; no mapping block between different widths."""
    g = tflib.Network("G", GeneratorConfig(**options, **SHARED), seed=0)
    images = g.run(np.random.RandomState(0).randn(2, *g.input_shapes[0]), truncation_psi=1, truncation_cutoff=2).images
    assert images.shape == (2, 3, 16, 16) and np.isfinite(images).all()
