"""ViTGAN's networks: golden files, sizes, snapshots, and mistakes found in public code."""

import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from dnnlib.tflib import registry, variables
from dnnlib.tflib.snapshot import read_records
from tests import golden_vitgan
from tests.conftest import golden_path
from training import loss
from training.networks import ViTGANDiscriminatorConfig, ViTGANGeneratorConfig
from training.networks.vitgan import attention, layers, patches, siren, spectral
from training.networks.vitgan.config import default_depth, default_patch
from training.networks.vitgan.generator import mapping

FILES = ("attention_dot", "attention_l2", "diffaug", "discriminator_full", "fourier", "generator_full", "isn", "losses", "mapping",
         "modulated_linear", "patches", "siren_head", "sln")  # fmt: skip
SMALL = {"resolution": 16, "dim": 24, "heads": 3, "depth": 2, "patch": 4}


def small_generator(name="G", seed=0, **options):
    return tflib.Network(name, ViTGANGeneratorConfig(**dict(SMALL, z_dim=8, mapping_num_layers=2, **options)), seed=seed)


def small_discriminator(name="D", seed=0, **options):
    return tflib.Network(name, ViTGANDiscriminatorConfig(**dict(SMALL, **options)), seed=seed)


def normal(*shape):
    return np.random.RandomState(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", FILES)
def test_golden(name):
    path = golden_path("vitgan", f"{name}.npz")
    error, tolerance = golden_vitgan.check_file(path)
    assert error <= tolerance
    with np.load(path, allow_pickle=False) as file:
        gradients = {array for array in file.files if "grad_" in array or re.match(r"(\w+_)?g:", array)}
    assert gradients <= set(golden_vitgan.results(path)[0])  # none was missed because of its name


def test_a_result_that_is_no_number_is_off(tmp_path):
    with np.load(golden_path("vitgan", "modulated_linear.npz")) as file:
        data = dict(file)
    data["out_demod"] = data["out_demod"] * np.nan  # after others that agree
    np.savez(str(tmp_path / "nan.npz"), **data)
    error, tolerance = golden_vitgan.check_file(str(tmp_path / "nan.npz"))
    assert not error <= tolerance


def test_scores_of_other_shapes_are_no_consistency():
    """[N] against [N, 1] would broadcast to [N, N] and pull all scores to one constant."""
    with pytest.raises(ValueError, match=r"shapes \[4\] and \[4, 1\]"):
        loss.consistency(tf.zeros([4]), tf.zeros([4, 1]))


@pytest.mark.parametrize("resolution, generator, discriminator", [(32, 11.43, 6.58), (64, 16.15, 10.05)])
def test_parameter_counts(resolution, generator, discriminator):
    """Trainable values in millions at the default widths (specification, section 7)."""
    sizes = {"resolution": resolution, "depth": default_depth(resolution), "patch": default_patch(resolution)}
    configs = [ViTGANGeneratorConfig(**sizes), ViTGANDiscriminatorConfig(**sizes)]
    for config, millions in zip(configs, (generator, discriminator)):
        whole = registry.find_for(config).whole
        with tf.Graph().as_default():
            whole.build(config, *[tf.zeros([1, *shape]) for _, shape in whole.inputs(config)])
            count = sum(int(np.prod(v.shape.as_list())) for v in tf.trainable_variables())
        assert round(count / 1e6, 2) == millions


@pytest.mark.usefixtures("graph")
def test_initial_scales_at_the_default_width():
    """Weights scaled twice give images of std 1e-8, a mapping without √2 gives w of rms 0.075 (specification, sections 2 and 3.5)."""
    config = ViTGANGeneratorConfig()
    network = tflib.Network("G", config)
    out = network.run(normal(16, 1, 512), return_ws=True)
    assert 0.065 < out.images.std() < 0.085  # 0.075 measured
    assert 0.04 < out.images.std(axis=0).mean() < 0.075  # over z; 0.059 measured
    assert 0.9 < np.sqrt(np.mean(out.ws**2)) < 1.3


@pytest.mark.usefixtures("graph")
def test_snapshot_round_trip(tmp_path):
    G, D = small_generator(seed=1), small_discriminator(seed=2, l2_mode="kim_dh")
    D.set_values({name: 3 * value for name, value in D.get_values().items() if name.endswith("weight")})  # σ(W) now differs from σ(W_init)
    tflib.run(D.after_update_op())
    Gs = small_generator("Gs", seed=3, demodulate=True, siren_layers=3)
    path = str(tmp_path / "network-snapshot-000000.pkl")
    tflib.save_snapshot(path, (G, D, Gs))
    z, images = normal(3, 1, 8), normal(3, 3, 16, 16)
    with tflib.session_scope():
        loaded = tflib.load_snapshot(path)
        got = [loaded[0].run(z).images, loaded[1].run(images).scores, loaded[2].run(z, truncation_psi=0.5).images]
        states = loaded[1].get_values()
        configs = [network.config for network in loaded]
    assert configs == [G.config, D.config, Gs.config]
    for value, expected in zip(got, [G.run(z).images, D.run(images).scores, Gs.run(z, truncation_psi=0.5).images]):
        np.testing.assert_array_equal(value, expected)
    for name, value in D.get_values().items():
        np.testing.assert_array_equal(states[name], value)
    stored = read_records(path)[1].values
    assert stored.keys() == D.variables.keys()
    assert sum(name.endswith("_sigma") for name in stored) == sum(name.endswith("_u") for name in stored) == 2 * 5 + 2


@pytest.mark.usefixtures("graph")
def test_every_variable_has_a_gradient():
    """An MLP whose output is not assigned, or detached Fourier features, would have none."""
    G, D = small_generator(positions="fourier"), small_discriminator()
    images = G.get_output_for(tf.constant(normal(4, 1, 8)), tf.zeros([4, 0])).images
    scores = D.get_output_for(images, tf.zeros([4, 0])).scores
    trainables = {**{f"G/{k}": v for k, v in G.trainables.items()}, **{f"D/{k}": v for k, v in D.trainables.items()}}
    gradients = tf.gradients(tf.reduce_mean(tf.nn.softplus(-scores)), list(trainables.values()))
    assert all(gradient is not None for gradient in gradients)
    sizes = {name: np.abs(value).max() for name, value in zip(trainables, tflib.run(gradients))}
    assert all(size > 0 for size in sizes.values()), sorted(name for name, size in sizes.items() if not size > 0)


@pytest.mark.usefixtures("graph")
def test_every_place_has_its_own_normalisation_and_latent():
    """One SLN shared by attention and MLP would leave fewer variables; each place of w must matter."""
    network = small_generator()
    gammas = [name for name in network.trainables if name.endswith("gamma_weight")]
    assert len(gammas) == 2 * 2 + 1 == network.config.num_ws
    ws = network.run_part("mapping", normal(1, 1, 8)).ws
    images = [network.run_part("synthesis", ws).images]
    for place in range(network.config.num_ws):
        changed = ws.copy()
        changed[:, :, place] += 1
        images.append(network.run_part("synthesis", changed).images)
    assert len({image.tobytes() for image in images}) == network.config.num_ws + 1


@pytest.mark.usefixtures("graph")
def test_attention_scales_before_the_softmax():
    q, k = 3 * normal(2, 2, 5, 4), 3 * normal(2, 2, 7, 4)
    probs = tflib.run(tf.nn.softmax(attention.dot_logits(tf.constant(q), tf.constant(k))))
    expected = np.exp(np.einsum("nhid,nhjd->nhij", q, k) / 2)
    np.testing.assert_allclose(probs, expected / expected.sum(-1, keepdims=True), rtol=1e-4)


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("mode, logits", [
    ("paper", lambda d, s: d / np.sqrt(s)), ("kim", lambda d, s: -(d**2) / np.sqrt(s)), ("kim_dh", lambda d, s: -(d**2) / s),
])  # fmt: skip
def test_l2_logits_against_loops(mode, logits):
    q, k = normal(1, 2, 5, 4), normal(1, 2, 3, 4)
    value = tflib.run(attention.l2_logits(tf.constant(q), tf.constant(k), mode))
    for head in range(2):
        for i in range(5):
            for j in range(3):
                distance = np.linalg.norm(q[0, head, i] - k[0, head, j])
                np.testing.assert_allclose(value[0, head, i, j], logits(distance, 4), rtol=1e-4)


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("mode", ["paper", "kim", "kim_dh"])
def test_equal_tokens_have_distance_0_and_finite_gradients(mode):
    tokens = normal(1, 1, 6, 64) + 5
    tokens[0, 0, 4] = tokens[0, 0, 1]
    q = tf.constant(tokens)
    logits = attention.l2_logits(q, q, mode)
    value, gradient = tflib.run([logits, tf.gradients(tf.reduce_sum(logits * normal(1, 1, 6, 6)), q)[0]])
    np.testing.assert_array_equal(np.diagonal(value[0, 0]), 0)
    assert value[0, 0, 1, 4] == value[0, 0, 4, 1] == 0
    np.testing.assert_allclose(value, value.transpose(0, 1, 3, 2), rtol=1e-5)
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).max() > 0


@pytest.mark.usefixtures("graph")
def test_roots_of_0_have_no_slope():
    """And no curvature: the regularizers differentiate twice."""
    x = tf.constant([0.0, 4.0])
    root = attention.safe_sqrt(x)
    slope = tf.gradients(root, x)[0]
    np.testing.assert_allclose(tflib.run([root, slope, tf.gradients(slope, x)[0]]), [[0, 2], [0, 1 / 4], [0, -1 / 32]])


@pytest.mark.usefixtures("graph")
def test_queries_and_keys_are_tied_in_the_discriminator_only():
    names = {kind: {name.rpartition("/")[2] for name in network.trainables if "/attn/" in name}
             for kind, network in (("D", small_discriminator()), ("G", small_generator()))}  # fmt: skip
    assert names["D"] == {"qk_weight", "v_weight", "o_weight", "o_bias"}
    assert names["G"] == {"q_weight", "k_weight", "v_weight", "o_weight", "o_bias"}


@pytest.mark.usefixtures("graph")
def test_patch_head_keeps_positions_apart():
    """Permuted pixels give permuted outputs, and a token paints only its own patch: no reshape mixes positions with channels."""
    x, scales, w = normal(1, 9, 5), normal(4, 5), normal(5, 3)
    order = np.random.RandomState(0).permutation(9)
    straight, permuted = tflib.run([siren.modulated_linear(tf.constant(v), tf.constant(scales), tf.constant(w)) for v in (x, x[:, order])])
    np.testing.assert_allclose(straight[:, order], permuted, rtol=1e-6)
    for n in range(4):
        np.testing.assert_allclose(straight[n], x[0] @ (scales[n][:, None] * w), rtol=1e-4, atol=1e-5)

    tokens = tf.constant(normal(2 * 4, 6))
    painted = siren.siren_head(tf.constant(normal(9, 6)), tokens, [6, 3], 30.0)
    images = patches.assemble_patches(painted, 2, 3)  # [2, 3, 6, 6]
    tflib.run([v.assign(normal(*v.shape.as_list())) for v in tf.global_variables()])
    gradient = tflib.run(tf.gradients(tf.reduce_sum(images[1, :, 3:, :3]), tokens)[0])  # second image, lower left patch
    assert list(np.flatnonzero(np.abs(gradient).sum(1))) == [4 + 2]


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("layers_num", [2, 3])
def test_a_step_of_the_optimizer_is_small_in_the_patch_head(layers_num):
    """Adam's first step moves every number by the learning rate; in the sine layers (factor 30, weights of 1/384) it must stay small."""
    features, tokens = tf.constant(np.sin(normal(16, 384))), tf.constant(normal(8, 384))
    painted = siren.siren_head(features, tokens, [384] * (layers_num - 1) + [3], 30.0)
    variables.initialize({variable.name: variable for variable in tf.global_variables()}, seed=0)
    before = tflib.run(painted)
    rng = np.random.RandomState(1)
    tflib.run([v.assign_add(0.002 * rng.choice([-1.0, 1.0], v.shape.as_list())) for v in tf.global_variables()])
    assert np.std(tflib.run(painted) - before) < 0.1 * np.std(before)


@pytest.mark.usefixtures("graph")
def test_mapping_against_numpy():
    z, widths = normal(3, 8), [6, 5]
    w = mapping(tf.constant(z), widths, 0.01)
    variables = {v.name[:-2]: v for v in tf.global_variables()}
    values = {name: normal(*v.shape.as_list()) / 0.01 for name, v in variables.items()}
    tflib.run([variables[name].assign(value) for name, value in values.items()])
    x = z / np.sqrt(np.mean(z**2, 1, keepdims=True) + 1e-8)
    for index in range(2):
        y = x @ (values[f"weight{index}"] * 0.01 / np.sqrt(x.shape[1])) + values[f"bias{index}"] * 0.01
        x = np.where(y > 0, y, 0.2 * y) * np.sqrt(2)
    np.testing.assert_allclose(tflib.run(w), x, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("graph")
def test_scores_have_no_activation():
    """With a GELU at the end they could not go below −0.17."""
    network = small_discriminator()
    images = normal(3, 3, 16, 16)
    before = network.run(images).scores
    network.set_values({"head/bias": network.get_values()["head/bias"] - 5})
    np.testing.assert_allclose(network.run(images).scores, before - 5, atol=1e-5)
    assert before.shape == (3, 1)


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("pad, windows", [(True, 64), (False, 49)])
def test_windows_against_loops(pad, windows):
    image = normal(1, 32, 32, 3)
    value = tflib.run(patches.overlapping_patches(tf.constant(image), 4, pad))
    canvas = np.pad(image[0], [(2, 2), (2, 2), (0, 0)]) if pad else image[0]
    expected = [canvas[y : y + 8, x : x + 8].ravel() for y in range(0, len(canvas) - 7, 4) for x in range(0, len(canvas) - 7, 4)]
    assert value.shape == (1, windows, 8 * 8 * 3)
    np.testing.assert_array_equal(value[0], expected)


def singular_value(kernel):
    return np.linalg.svd(kernel, compute_uv=False)[0]


@pytest.mark.usefixtures("graph")
def test_spectral_state_moves_once_per_update_and_converges():
    network = small_discriminator()
    state = {name: v for name, v in network.get_values().items() if name.endswith("_u")}
    for name, value in network.get_values().items():
        if name.endswith("_sigma"):
            np.testing.assert_allclose(value, singular_value(network.get_values()[name[: -len("_sigma")]]), rtol=1e-5)
    images, labels = tf.constant(normal(2, 3, 16, 16)), tf.zeros([2, 0])
    for _ in range(2):  # any number of passes leaves the state unchanged
        tflib.run(network.get_output_for(images, labels, training=True).scores)
    for name, value in state.items():
        np.testing.assert_array_equal(network.get_values()[name], value)
    update = network.after_update_op()
    tflib.run(update)
    moved = network.get_values()
    for name, u in state.items():
        kernel = moved[name[:-2]].astype(np.float64)
        expected = kernel.T @ (kernel @ u)
        np.testing.assert_allclose(moved[name], expected / np.linalg.norm(expected), atol=1e-5)
    for _ in range(300):
        tflib.run(update)
    name = "block0/attn/v_weight"
    sigma = tflib.run(spectral.power_iteration(network.variables[name], network.variables[name + "_u"])[0])
    np.testing.assert_allclose(sigma, singular_value(network.get_values()[name]), rtol=1e-3)


@pytest.mark.usefixtures("graph")
def test_normalised_weights_keep_their_initial_singular_value():
    network = small_discriminator()
    name = "block1/mlp/weight0"
    initial = network.get_values()[name]
    network.set_values({name: 7 * initial[:, ::-1]})  # another matrix, seven times as large
    update = network.after_update_op()
    for _ in range(300):
        tflib.run(update)
    scope = tf.VariableScope(reuse=True, name=f"{network.scope}/block1/mlp")
    with tf.variable_scope(scope, auxiliary_name_scope=False):
        used = tflib.run(spectral.spectral_weight(list(initial.shape), name="weight0"))
    np.testing.assert_allclose(singular_value(used), singular_value(initial) / np.sqrt(initial.shape[0]), rtol=1e-3)


@pytest.mark.usefixtures("graph")
def test_maps_are_the_attention_of_every_block():
    network = small_generator()
    out = network.run(normal(2, 1, 8), return_maps=True)
    assert out.maps.shape == (2, 16, 2, 3, 16, 16)  # [N, T, depth, h, S, S]
    np.testing.assert_allclose(out.maps.sum(axis=1), 1, rtol=1e-5)  # a patch's attention over all tokens sums to one
    np.testing.assert_array_equal(out.maps[..., ::4, ::4], out.maps[..., 3::4, 3::4])  # constant within a patch
    h = tflib.run(layers.standardize(tf.constant(_positions(network))))
    values, w = network.get_values(), network.run_part("mapping", normal(2, 1, 8)).ws[0, 0, 0]

    def dense(role, x):
        return x @ (values[f"block0/{role}_weight"] / np.sqrt(24)) + values.get(f"block0/{role}_bias", 0)

    x = h * dense("sln1/gamma", w) + dense("sln1/beta", w)
    q, k = [dense(f"attn/{role}", x)[:, 8:16] for role in "qk"]  # the second head
    logits = q @ k.T / np.sqrt(8)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)  # [from, to]
    np.testing.assert_allclose(out.maps[0, :, 0, 1, ::4, ::4].reshape(16, 16), probs.T, rtol=1e-3)


def _positions(network):
    values = network.get_values()
    return np.sin(layers.coordinates(4).astype(np.float32) @ values["pos/weight"] + values["pos/bias"])


@pytest.mark.usefixtures("graph")
def test_truncation_labels_and_other_readings():
    G, D = small_generator(c_dim=3, positions="table", style="direct"), small_discriminator(c_dim=3, positions="table", pad_patches=False)
    G.set_values({"dlatent_avg": normal(24)})
    z, labels = normal(4, 1, 8), np.eye(3)[[0, 1, 2, 0]]
    at_average = G.run(z, labels, truncation_psi=0.0).images
    assert np.abs(at_average - at_average[:1]).max() < 1e-6 < np.abs(G.run(z, labels).images.std(0)).max()
    assert np.abs(G.run(z, labels).images - G.run(z, labels[::-1]).images).max() > 1e-4
    images = normal(2, 3, 16, 16)
    scores = [D.run(images, np.eye(3)[[c, c]]).scores for c in range(3)]
    assert len({score.tobytes() for score in scores}) == 3 and scores[0].shape == (2, 1)
    D.set_values({"head/bias": D.get_values()["head/bias"] + [1, 2, 4]})
    for c, rise in enumerate((1, 2, 4)):
        np.testing.assert_allclose(D.run(images, np.eye(3)[[c, c]]).scores, scores[c] + rise, rtol=1e-5)
    assert "pos/table" in G.variables and D.variables["pos/table"].shape.as_list() == [9, 24]
    with tf.variable_scope(tf.VariableScope(reuse=True, name=G.scope), auxiliary_name_scope=False):
        positions = layers.position_embedding(4, 24, "table")
    np.testing.assert_allclose(tflib.run(positions), np.sin(G.get_values()["pos/table"]), atol=1e-6)


@pytest.mark.usefixtures("graph")
def test_truncated_latents_and_their_average():
    """ψ pulls places below the cutoff towards the average, in the whole and in its parts; training moves the average 0.005 of the way."""
    G, z, average = small_generator(), normal(3, 1, 8), normal(24)
    G.set_values({"dlatent_avg": average})
    w = G.run_part("mapping", z).ws
    expected = np.concatenate([average + 0.3 * (w[:, :, :2] - average), w[:, :, 2:]], axis=2)
    options = {"truncation_psi": 0.3, "truncation_cutoff": 2}
    whole = G.run(z, return_ws=True, **options)
    for ws in (whole.ws, G.run_part("mapping", z, **options).ws):
        np.testing.assert_allclose(ws, expected, atol=1e-5)
    np.testing.assert_allclose(G.run_part("synthesis", expected).images, whole.images, atol=1e-5)
    [(variable, value)] = G.get_output_for(tf.constant(z), tf.zeros([3, 0]), training=True).updates
    assert variable is G.variables["dlatent_avg"]
    np.testing.assert_allclose(tflib.run(value), 0.995 * average + 0.005 * w[:, 0, 0].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("options, message", [
    ({"patch": 5}, "patch: got 5, accepted: a divisor"), ({"heads": 5}, "heads: got 5, accepted: a divisor"),
    ({"patch": 1}, "even number"), ({"patch": 16, "pad_patches": False}, "at most half"),
    ({"l2_mode": "cosine"}, "l2_mode: got 'cosine', accepted: paper"), ({"positions": "x"}, "positions"),
])  # fmt: skip
def test_impossible_configurations(options, message):
    with pytest.raises(UserError, match=message):
        ViTGANDiscriminatorConfig(**dict(SMALL, **options))


def test_patches_of_small_pictures_are_even():
    """Otherwise the discriminator could not overlap them."""
    assert ViTGANDiscriminatorConfig(**dict(SMALL, resolution=8, patch=default_patch(8))).grid == 4


@pytest.mark.parametrize("name", ["siren_w0", "mapping_lrmul"])
def test_factors_that_weights_are_divided_by_are_not_0(name):
    with pytest.raises(UserError, match=f"{name}: got 0, accepted: 1e-08 or more"):
        ViTGANGeneratorConfig(**dict(SMALL, **{name: 0}))
