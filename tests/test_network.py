"""Network: variables, running, cloning, averaging; random streams."""

import importlib
from concurrent import futures

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from dnnlib.tflib import registry
from training.networks import DiscriminatorConfig, GeneratorConfig
from training.networks.layers import Context
from training.networks.vitgan.config import ViTGANDiscriminatorConfig, ViTGANGeneratorConfig

generator_module = importlib.import_module("training.networks.generator")  # its function has the same name

SMALL = {"resolution": 16, "channel_base": 128, "channel_max": 16}


def small_generator(name="G", seed=0, **options):
    return tflib.Network(name, GeneratorConfig(z_dim=8, w_dim=8, **dict(SMALL, **options)), seed=seed)


def test_initial_values(graph):
    """Weights are N(0, 1/lrmul), biases zero; they depend only on the seed and the variable's name."""
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


INITIAL = [  # end of a variable's name, mean and standard deviation of its initial values; the first match counts
    ("noise_strength", 0, 0), ("bias", 0, 0), ("bias_query", 0, 0), ("mod_bias", 0, 0), ("dlatent_avg", 0, 0), ("norm_mean", 0, 0),
    ("norm_square", 1, 0), ("st_weights", 1, 0), ("G_mapping/Dense0/weight", 0, 100), ("ltnt_emb/emb", 0.5, 12**-0.5),
    ("aggregators", 0.5, 12**-0.5), ("toasgn_init", 0, 1), ("noise4", 0, 1), ("Const/const", 0, 1), ("LabelConcat/weight", 0, 1),
    ("mod_weight", 0, 1), ("ToRGB/weight", 0, 1), ("weight_value", 0, 1), ("16x16/Conv0/weight", 0, 1), ("FromRGB/weight", 0, 1),
]  # fmt: skip
VITGAN_INITIAL = [
    ("G/pos/weight", 0, np.sqrt(4.5 / 3)), ("G/fou/weight", 0, np.sqrt(4.5 / 3)), ("pos/bias", 0, np.sqrt(0.5 / 3)),
    ("style_bias", 1, 0), ("gamma_bias", 1, 0), ("beta_bias", 0, 0), ("gain", 1, 0), ("o_bias", 0, 0), ("mlp/bias0", 0, 0),
    ("siren0/bias", 0, 0),
    ("cls", 0, 1), ("q_weight", 0, 1), ("gamma_weight", 0, 1), ("siren0/style_weight", 0, 1), ("map/weight0", 0, 100),
    ("siren0/weight", 0, 30 / np.sqrt(96) / np.sqrt(3)), ("siren1/weight", 0, np.sqrt(2)), ("siren2/weight", 0, np.sqrt(2) / 30),
    ("patch/weight", 0, 1), ("mlp/weight0", 0, 1), ("patch/weight_u", 0, 96**-0.5), ("mlp/weight0_u", 0, 384**-0.5),
]  # fmt: skip


@pytest.mark.parametrize("classes, shared, own, expected", [
    ((GeneratorConfig, DiscriminatorConfig), {"channel_base": 1024, "channel_max": 64, "transformer": True, "components_num": 32},
     {"w_dim": 64, "kmeans": True, "norm": "batch", "integration": "both", "c_dim": 16}, INITIAL),
    ((ViTGANGeneratorConfig, ViTGANDiscriminatorConfig), {"dim": 96, "depth": 1}, {"siren_layers": 3}, VITGAN_INITIAL),
    ((ViTGANGeneratorConfig, ViTGANDiscriminatorConfig), {"dim": 96, "depth": 1}, {"siren_layers": 1},
     [("siren0/weight", 0, np.sqrt(2) / 30)]),
], ids=["convolutional", "ViTGAN", "linear patch head"])  # fmt: skip
def test_initial_distributions(graph, classes, shared, own, expected):
    """As in the papers and the specification, to within four standard errors."""
    generator, discriminator = classes
    g_config = generator(resolution=16, z_dim=64, mapping_num_layers=2, **shared, **own)
    values = {}
    for name, config in (("G", g_config), ("D", discriminator(resolution=16, **shared))):
        network = tflib.Network(name, config, seed=5)
        values.update({f"{name}/{key}": value for key, value in network.get_values().items()})
    for ending, mean, deviation in expected:
        found = [value for name, value in values.items() if f"/{name}".endswith(f"/{ending}")]
        assert found, ending
        for value in found:
            assert abs(value.mean() - mean) <= 4 * deviation / np.sqrt(value.size) + 1e-6, ending
            assert abs(value.std() - deviation) <= 4 * deviation / np.sqrt(value.size) + 1e-6, ending


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
    one, another = (g.run(z, noise_mode="random").images for _ in range(2))
    assert np.abs(one - another).max() > 1e-2  # without seeds, the noise is drawn anew
    other = g.run(z, batch_size=5, seeds=seeds + 1, noise_mode="random").images
    np.testing.assert_allclose(other[0], g.run(z[:1], seeds=seeds[:1] + 1, noise_mode="random").images[0], atol=2e-5)
    assert np.abs(whole - other).max() > 1e-2


def scores_of(network, images):
    """The network's scores for all images as one batch, without `run`."""
    return tflib.run(network.get_output_for(tf.constant(images, tf.float32), tf.zeros([len(images), 0])).scores)


@pytest.mark.parametrize("options", [{}, {"transformer": True, "a_dim": 8}])
def test_compared_images_stay_together_at_any_batch_size(graph, options):
    """Groups of the minibatch standard deviation are formed from all images: sample n is in group n mod (N / 4)."""
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


def test_networks_run_in_any_thread(graph):
    """As servers call them: from threads of their own, several of them for the first time at once."""
    g = small_generator()
    z = np.random.RandomState(0).standard_normal((2, 1, 8))

    def request(name):
        twin = g.clone(name)
        g.set_values({"dlatent_avg": np.zeros(8)})
        return [network.run(z, truncation_psi=0.5).images for network in (g, twin)] + [twin.get_values()["G_mapping/Dense0/bias"]]

    with futures.ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(request, "abc"))
    expected = g.run(z, truncation_psi=0.5).images
    for own, of_twin, bias in answers:
        np.testing.assert_allclose(own, expected, atol=1e-5)
        np.testing.assert_allclose(of_twin, expected, atol=1e-5)
        assert bias.shape == (8,)
    assert len(g._calls) == 2  # as a template of the variables, and as called


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


def test_a_clone_repeats_the_variables_alone(graph):
    g = small_generator(seed=1, components_num=2, transformer=True)
    before = len(tf.get_default_graph().get_operations())
    gs = g.clone("Gs")
    added = tf.get_default_graph().get_operations()[before:]
    assert not {"Conv2D", "MatMul"} & {op.type for op in added}
    assert {gs.scope + name[len(g.scope) :] for name in (v.name for v in g.variables.values())} == {v.name for v in gs.variables.values()}
    assert list(gs.variables) == list(g.variables) and list(gs.trainables) == list(g.trainables)
    trainable = set(tf.trainable_variables())
    assert all((gs.variables[name] in trainable) == (name in g.trainables) for name in gs.variables)
    assert gs.layer_table()[1:-1] == g.layer_table()[1:-1]


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


def test_first_latent_modulates_without_the_transformer(graph):
    """Without attention or merging, each of several latents is mapped on its own, and only the first one determines the picture."""
    several, single = small_generator(components_num=3, latent_stem=True), small_generator(latent_stem=True)
    single.set_values({name: value for name, value in several.get_values().items() if name != "ltnt_emb/emb"})
    z = np.random.RandomState(0).randn(2, 3, 8)
    for index in range(3):
        alone = single.run_part("mapping", z[:, index : index + 1]).ws
        np.testing.assert_allclose(several.run_part("mapping", z).ws[:, index : index + 1], alone, atol=1e-6)
    np.testing.assert_allclose(several.run(z).images, single.run(z[:, :1]).images, atol=1e-5)


def test_truncation(graph):
    """ψ pulls every w toward the average, in all layers or in those below the cutoff."""
    g = small_generator(components_num=2, transformer=True)
    average = np.arange(8) / 10
    g.set_values({"dlatent_avg": average})
    z = np.random.RandomState(0).randn(2, 3, 8)
    ws = g.run_part("mapping", z).ws
    np.testing.assert_allclose(g.run_part("mapping", z, truncation_psi=0.3).ws, average + 0.3 * (ws - average), atol=1e-6)
    built = len(tf.get_default_graph().get_operations())
    np.testing.assert_allclose(g.run_part("mapping", z, truncation_psi=0.6).ws, average + 0.6 * (ws - average), atol=1e-6)
    assert len(tf.get_default_graph().get_operations()) == built  # numbers are fed: another ψ does not make the graph larger
    cut = g.run_part("mapping", z, truncation_psi=0.3, truncation_cutoff=2).ws
    np.testing.assert_allclose(cut[:, :, 2:], ws[:, :, 2:], atol=1e-6)
    np.testing.assert_allclose(cut[:, :, :2], (average + 0.3 * (ws - average))[:, :, :2], atol=1e-6)


def test_average_latent_moves_in_training(graph):
    """By 0.005 of the distance towards the mean w over images and latents, before mixing."""
    g = small_generator(components_num=2, transformer=True, style_mixing=1.0, component_mixing=1.0)
    average, z = np.arange(8) / 10, np.random.RandomState(0).randn(4, 3, 8)
    g.set_values({"dlatent_avg": average})
    given = tf.constant(z, tf.float32), tf.zeros([4, 0])
    [(variable, value)] = g.get_output_for(*given, training=True, streams=tflib.RandomStreams(0)).updates
    assert variable is g.variables["dlatent_avg"]
    mean = g.run_part("mapping", z).ws[:, :, 0].mean(axis=(0, 1))
    np.testing.assert_allclose(tflib.run(value), 0.995 * average + 0.005 * mean, rtol=1e-5)


def mapping_in_numpy(values, config, z, labels):
    """w [N, K, w_dim] of a conditional mapping without attention between the latents, following the specification."""

    def dense(x, name, lrmul=1.0):
        scope, _, suffix = name.rpartition("/")
        weight, bias = (values["/".join(["G_mapping", scope, part + suffix]).replace("//", "/")] for part in ("weight", "bias"))
        return x @ weight * (lrmul / np.sqrt(len(weight))) + bias * lrmul

    def lrelu(x):
        return np.where(x > 0, x, 0.2 * x)

    def layers(x, scope):
        if not config.mapping_resnet:
            for index in range(config.mapping_num_layers):
                x = np.sqrt(2) * lrelu(dense(x, f"{scope}Dense{index}/", 0.01))
            return x
        for index in range(config.mapping_num_layers // 2):
            inner = np.sqrt(2) * lrelu(dense(x, f"{scope}Dense{index}_0/", 0.01))
            x = lrelu(dense(inner, f"{scope}Dense{index}_1/", 0.01) + x)
        return np.sqrt(2) * lrelu(dense(x, f"{scope}Dense{index}/", 0.01))

    embedded = np.repeat((labels @ values["G_mapping/LabelConcat/weight"])[:, np.newaxis], z.shape[1], axis=1)
    x = np.concatenate([z, embedded], axis=2)
    x = dense(x, "_map_start") if config.mapping_dim else x
    region, world = x[:, :-1], x[:, -1:]
    parts = [region / np.sqrt(np.mean(region**2, axis=2, keepdims=True) + 1e-8), world]
    if config.mapping_resnet and not config.mapping_dim:
        parts = [part @ values["G_mapping/LabelConcat/weight_join"] / 4 for part in parts]  # √16 inputs
    w = np.concatenate([layers(part, scope) for part, scope in zip(parts, ("", "global/"))], axis=1)
    return dense(w, "_map_end") if config.mapping_dim else w


@pytest.mark.parametrize("options", [{}, {"mapping_resnet": True}, {"mapping_resnet": True, "mapping_dim": 12}])
def test_labels_in_the_mapping_against_numpy(graph, options):
    """They join z before the region latents are normalized; the global latent is not normalized."""
    g = small_generator(resolution=4, components_num=2, transformer=True, c_dim=3, mapping_num_layers=4, **options)
    rng = np.random.RandomState(0)
    values = {name: 100 * rng.randn(*value.shape) if "Dense" in name else rng.randn(*value.shape)
              for name, value in g.get_values().items() if name.startswith("G_mapping")}  # fmt: skip
    g.set_values(values)
    z, labels = rng.randn(3, 3, 8), np.eye(3)[[2, 0, 1]]
    w = g.run_part("mapping", z, labels).ws
    np.testing.assert_allclose(w[:, :, 0], mapping_in_numpy(values, g.config, z, labels), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(w, np.repeat(w[:, :, :1], 3, axis=2))


def test_mixing_cuts_everywhere(graph, monkeypatch):
    """With the given probability, other latents take over from a position between 1 and count − 1, of the layers and of the latents."""
    config = GeneratorConfig(z_dim=8, w_dim=8, components_num=3, transformer=True, style_mixing=0.6, component_mixing=0.3, **SMALL)
    fresh = []

    def mapping(config, z, labels, positions, ctx, mask):
        assert ctx.training and mask == "mask"
        fresh.append(z)
        return tf.zeros([4000, 4, 7, 8])

    monkeypatch.setattr(generator_module, "mapping", mapping)
    mixed = generator_module._mix(config, tf.ones([4000, 4, 7, 8]), None, None, Context(True, tflib.RandomStreams(0)), "mask")
    own, fresh = tflib.run([mixed, fresh])
    assert fresh[0].shape == fresh[1].shape == (4000, 4, 8) and abs(np.std(fresh) - 1) < 0.02
    cuts = []
    for axis, probability in ((2, 0.6), (1, 0.3)):
        count = own.shape[axis]
        line = own.max(axis=(3 - axis, 3))  # [N, count]: the first latent and the first layer always stay
        cuts.append(line.sum(axis=1))
        np.testing.assert_array_equal(line, np.arange(count) < cuts[-1][:, np.newaxis])
        shares = [np.mean(cuts[-1] == cut) for cut in range(1, count + 1)]
        np.testing.assert_allclose(shares, [probability / (count - 1)] * (count - 1) + [1 - probability], atol=0.02)
    layers, latents = [np.arange(count) < cut[:, np.newaxis] for count, cut in zip((7, 4), cuts)]
    np.testing.assert_array_equal(own[..., 0], latents[:, :, np.newaxis] & layers[:, np.newaxis])
    assert abs(np.corrcoef(*cuts)[0, 1]) < 0.05


def test_an_absent_component_changes_nothing(graph, monkeypatch):
    """It affects neither the other latents in the mapping nor the picture."""
    z, mask = tf.placeholder(tf.float32, [2, 4, 8]), tf.placeholder(tf.float32, [2, 1, 3])
    g = small_generator(
        resolution=8, components_num=3, transformer=True, mapping_num_layers=2, mapping_resnet=True, mapping_ltnt2ltnt=True,
        ltnt2ltnt=True, component_dropout=0.3, attention_dropout=0.0, style_mixing=0.0,
    )  # fmt: skip
    ctx, free = Context(True, tflib.RandomStreams(0)), tf.zeros([4000, 4, 8])
    assert generator_module._component_mask(g.config, free, Context()) is None
    drawn = tflib.run(generator_module._component_mask(g.config, free, ctx))
    assert drawn.shape == (4000, 1, 3) and set(np.unique(drawn)) == {0, 1}
    np.testing.assert_allclose(drawn.mean(axis=0)[0], 0.7, atol=0.03)
    assert abs(np.corrcoef(drawn[:, 0, 0], drawn[:, 0, 1])[0, 1]) < 0.05
    monkeypatch.setattr(generator_module, "_component_mask", lambda config, z, ctx: mask)
    out = g.get_output_for(z, tf.zeros([2, 0]), training=True, streams=tflib.RandomStreams(0))
    latents = np.random.RandomState(0).randn(2, 4, 8)
    for present in (1, 0):
        masks = np.tile([1, present, 1], [2, 1, 1])
        one, other = (tflib.run([out.images, out.ws[:, 0]], {z: value, mask: masks}) for value in (latents, latents + [[0], [1], [0], [0]]))
        changes = [np.abs(a - b).max() for a, b in zip(one, other)]
        assert min(changes) > 1e-3 if present else max(changes) < 1e-5


def test_every_draw_has_a_stream_of_its_own(graph, monkeypatch):
    """Equal names would give equal numbers: the same noise in two layers, the same dropout in two attentions."""
    names, draw = [], tflib.RandomStreams._draw

    def recorded(streams, sample, name, shape):
        names.append(streams.path + name)
        return draw(streams, sample, name, shape)

    monkeypatch.setattr(tflib.RandomStreams, "_draw", recorded)
    shared = {"resolution": 8, "channel_base": 32, "channel_max": 8, "transformer": True, "components_num": 2, "img2img": 3,
              "attention_dropout": 0.2, "ltnt2ltnt": True}  # fmt: skip
    g_config = GeneratorConfig(z_dim=8, w_dim=8, mapping_num_layers=2, img2ltnt=True, kmeans=True, kmeans_iters=2, component_mixing=0.5,
                               component_dropout=0.1, mapping_resnet=True, mapping_ltnt2ltnt=True, **shared)  # fmt: skip
    streams, labels = tflib.RandomStreams(0), tf.zeros([2, 0])
    d_config = DiscriminatorConfig(a_dim=8, ltnt2img=True, **dict(shared, resolution=16))  # two blocks
    build_g, build_d = [registry.find_for(config).whole.build for config in (g_config, d_config)]
    with tf.variable_scope("networks", reuse=tf.AUTO_REUSE):
        z = streams.normal("z", [2, 3, 8])
        build_g(g_config, z, labels, training=True, streams=streams.child("G"), noise_mode="random")
        in_g = len(names)
        build_d(d_config, tf.zeros([2, 3, 16, 16]), labels, training=True, streams=streams.child("D"))
    assert len(names) == len(set(names)) and in_g > 30 and len(names) - in_g == 2 * (3 + 4), sorted(names)


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
    drawn, other = (tflib.PerImageStreams(seeds).normal(name, [tf.shape(seeds)[0], 4, 4]) for name in ("noise", "other"))
    many, one = tflib.run(drawn, {seeds: [3, 9, 4]}), tflib.run(drawn, {seeds: [9]})
    np.testing.assert_array_equal(many[1], one[0])
    assert np.abs(many[0] - many[2]).min() > 0
    assert np.abs(tflib.run(other, {seeds: [9]}) - one).min() > 0  # each layer has its own noise
