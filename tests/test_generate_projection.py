"""generate.py --project: the latents of a given picture."""

import contextlib
import itertools
import json
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf

import generate
from dnnlib import UserError, run_main, tflib
from tests.metrics_standins import write_features_dir
from tests.picture_models import assert_same_picture, expected_bytes, load_generator, one_error_line, read_png
from training.networks import GeneratorConfig
from training.visualize import projection, sampling


@pytest.mark.slow
def test_a_picture_of_the_model_is_found_again(picture_models, tmp_path):
    model = ["--model", picture_models["ganformer"], "--gpus", "cpu", "--output-dir", str(tmp_path)]
    assert run_main(generate.main, [*model, "--seeds", "3"]) == 0
    assert run_main(generate.main, [*model, "--project", str(tmp_path / "sample_000003.png"), "--project-steps", "60"]) == 0
    target, found = read_png(tmp_path, "sample_000003.png"), read_png(tmp_path, "sample_000003-projected.png")
    both = read_png(tmp_path, "sample_000003-side-by-side.png")
    np.testing.assert_array_equal(both, np.concatenate([target, found], axis=1))
    stored = dict(np.load(str(tmp_path / "sample_000003-projected.npz")))
    w = stored.pop("w")
    assert w.shape == (4, 7, 8) and np.isfinite(stored.pop("distance"))
    with tflib.session_scope():
        Gs = load_generator(picture_models["ganformer"])
        average = Gs.run_part("mapping", np.random.RandomState(0).standard_normal([64, 4, 6]), truncation_psi=0.7).ws.mean(axis=0)
        start = expected_bytes(Gs.run_part("synthesis", average[np.newaxis]).images, ratio=0.75)[0]
        assert set(stored) == {f"G_synthesis/noise{index}" for index in range(Gs.config.num_ws - 2)}  # no layer reads the last noise
        Gs.set_values(stored)
        again = expected_bytes(Gs.run_part("synthesis", w[np.newaxis]).images, ratio=0.75)[0]
    assert_same_picture(found, again)
    assert np.abs(found.astype(int) - target).mean() < 0.5 * np.abs(start.astype(int) - target).mean()


def test_pictures_with_alpha(picture_models, tmp_path, monkeypatch):
    steps, step = [], projection._Search.step
    monkeypatch.setattr(projection._Search, "step", lambda *arguments: steps.append(step(*arguments)))
    model = ["--model", picture_models["alpha"], "--gpus", "cpu", "--output-dir", str(tmp_path)]
    assert run_main(generate.main, [*model, "--images-num", "1", "--attention-maps"]) == 0
    assert read_png(tmp_path, "sample_000000.png").shape == (8, 8, 4) and read_png(tmp_path, "blend_000000.png").shape == (8, 8, 3)
    search = ["--project", str(tmp_path / "sample_000000.png"), "--project-steps", "2", "--project-noise", "False"]
    assert run_main(generate.main, [*model, *search]) == 0
    assert len(steps) == 2
    assert set(np.load(str(tmp_path / "sample_000000-projected.npz"))) == {"w", "distance"}
    both = read_png(tmp_path, "sample_000000-side-by-side.png")
    assert both.shape == (8, 16, 4)
    np.testing.assert_array_equal(both[:, :8], read_png(tmp_path, "sample_000000.png"))


@pytest.mark.slow
def test_vgg_is_used_where_it_is(picture_models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GANFORMER_CACHE", str(tmp_path / "cache"))
    PIL.Image.fromarray(np.full([8, 8, 3], 90, np.uint8)).save(str(tmp_path / "gray.png"))
    (tmp_path / "features").mkdir()
    write_features_dir(str(tmp_path / "features"))
    common = ["--model", picture_models["kgan"], "--gpus", "cpu", "--project", str(tmp_path / "gray.png"), "--project-steps", "5"]
    distances = []
    for name, extra in (("without", []), ("with", ["--features-dir", str(tmp_path / "features")])):
        assert run_main(generate.main, [*common, "--output-dir", str(tmp_path / name), *extra]) == 0
        record = json.loads((tmp_path / name / "gray-projected.json").read_text())
        assert f"image loss: {record['image_loss']}" in capsys.readouterr().out
        assert record["image_loss"].endswith("random features") == (name == "without") != ("VGG-16" in record["image_loss"])
        assert len(record["model_sha256"]) == 64 and "--project-steps 5" in record["command"]
        distances.append(float(np.load(str(tmp_path / name / "gray-projected.npz"))["distance"]))
    assert abs(distances[0] - distances[1]) > 1e-6
    assert run_main(generate.main, [*common, "--output-dir", str(tmp_path / "x"), "--features-dir", "absent"]) == 1
    assert one_error_line(capsys.readouterr().err) == "error: --features-dir absent: no such folder"


def test_pictures_for_the_perceptual_distance(graph):
    seen = []

    def perceptual(one, other):
        seen.append(tuple(one.shape.as_list()))
        return tf.reduce_mean(tf.square(one - other), axis=[1, 2, 3])

    for shape in ((1, 1, 6, 8), (1, 3, 32, 64), (1, 4, 256, 512)):
        one, other = np.full(shape, -1.0), np.full(shape, 1.0)
        value = float(tflib.run(projection.distance(_constant(one), _constant(other), perceptual)))
        np.testing.assert_allclose(value, 4.0 + projection.PERCEPTUAL_WEIGHT * 255**2, rtol=1e-4)
    assert seen == [(1, 36, 48, 3), (1, 32, 64, 3), (1, 128, 256, 3)]


def test_the_network_keeps_its_noise_and_the_search_repeats(picture_models, monkeypatch):
    with tflib.session_scope():
        Gs = load_generator(picture_models["kgan"])
        before = Gs.get_values()
        sampler = sampling.Sampler(Gs, 0.75, 0.7, 4, quiet=True)
        target = np.full([3, 6, 8], 90, np.uint8)
        found = [projection.project(sampler, target, 3, with_noise) for with_noise in (True, True, False)]
        monkeypatch.setattr(projection, "NOISE_WEIGHT", 0.0)
        unpenalized = projection.project(sampler, target, 3, with_noise=True).noise
        sampler.noise_mode = "none"
        assert projection.project(sampler, target, 1, with_noise=True).noise == {}
        after = Gs.get_values()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    np.testing.assert_allclose(found[0].w, found[1].w, atol=1e-4)
    assert found[2].noise == {} and len(found[0].noise) == 3
    for name, noise in found[0].noise.items():
        assert abs(noise.mean()) < 1e-3 and abs(noise.std() - 1) < 1e-3
        unmoved = (before[name] - before[name].mean()) / before[name].std()
        assert min(np.abs(one - other).max() for one, other in itertools.combinations((noise, unmoved, unpenalized[name]), 2)) > 1e-2


def test_the_learning_rate_rises_for_a_twentieth_of_the_way_and_falls_in_its_last_quarter():
    """As in Karras et al. 2020, appendix D: linearly up, then down along a cosine."""
    found = [projection._learning_rate(part) for part in (0.025, 0.06, 0.5, 0.75, 0.875, 1.0)]
    np.testing.assert_allclose(found, [0.05, 0.1, 0.1, 0.1, 0.05, 0.0], atol=3e-3)


def test_the_search_explores_less_and_less_for_three_quarters_of_the_way(monkeypatch):
    """As in Karras et al. 2020, appendix D: 0.05 of the spread of w, falling with the square of what is left."""
    found, ws = [], 3 * np.random.RandomState(0).standard_normal([256, 4, 7, 50]) + 2
    search = SimpleNamespace(step=lambda rate, exploration: found.append(exploration), result=lambda *arguments: None, restore=lambda: None)
    monkeypatch.setattr(projection, "_Search", lambda *arguments: search)
    bar = contextlib.nullcontext(SimpleNamespace(update=lambda steps: None))
    sampler = SimpleNamespace(ws_of_seeds=lambda seeds: ws[: len(seeds)], bar=lambda *arguments: bar)
    projection.project(sampler, None, 8, with_noise=False)
    expected = [0.05 * 3 * (left / 6) ** 2 for left in (6, 5, 4, 3, 2, 1, 0, 0)]
    np.testing.assert_allclose([exploration.std() for exploration in found], expected, rtol=0.1)


def test_the_search_begins_at_the_average_and_sees_the_pictures_of_the_sampler(picture_models):
    """The first step is small; the distance is that of the picture without its padding, in the sampler's noise mode."""
    with tflib.session_scope():
        Gs = load_generator(picture_models["kgan"])
        sampler = sampling.Sampler(Gs, 0.75, 0.7, 64, noise_mode="none", quiet=True)
        found = projection.project(sampler, np.full([3, 6, 8], 90, np.uint8), 1, with_noise=False)
        picture = Gs.run_part("synthesis", found.w[np.newaxis], noise_mode="none").images[:, :, 1:7]
        seen = tflib.run(projection.distance(_constant(picture), _constant(np.full(picture.shape, 90 / 127.5 - 1))))
        z = np.stack([tflib.numpy_stream(seed, "z").standard_normal(Gs.input_shapes[0]) for seed in range(256)])
        average = Gs.run_part("mapping", z, truncation_psi=0.7, batch_size=64).ws.mean(axis=0)
    assert np.abs(found.w - average).max() < 0.01
    np.testing.assert_allclose(found.distance, seen, rtol=1e-4)


def halved(x):
    """Means over 2 x 2 cells of [..., H, W]."""
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


@pytest.mark.parametrize("height, scales", [(16, 3), (8, 2)])
def test_distance_against_numpy(graph, height, scales):
    """Pixels at sizes down to 4; three layers of random 3 x 3 filters, the last two of which halve the size."""
    pair = np.random.RandomState(0).uniform(-1, 1, size=[2, 3, height, 16])
    errors = [np.mean((x[0] - x[1]) ** 2) for x in (pair, halved(pair), halved(halved(pair)))[:scales]]
    features, x = [], pair
    for layer, stride in enumerate((1, 2, 2)):
        inputs, outputs, (rows, columns) = x.shape[1], (16, 32, 64)[layer], x.shape[2:]
        kernel = tflib.numpy_stream(0, f"projection/features{layer}").standard_normal([3, 3, inputs, outputs]) * np.sqrt(2 / (9 * inputs))
        around = np.pad(x, [(0, 0), (0, 0), (2 - stride, 1), (2 - stride, 1)], "constant")  # for even sizes, halving pads only the end
        parts = [np.einsum("nchw,co->nohw", around[:, :, i : i + rows : stride, j : j + columns : stride], kernel[i, j])
                 for i in range(3) for j in range(3)]  # fmt: skip
        x = np.sum(parts, axis=0)
        x = np.maximum(x, 0.2 * x)
        features.append(np.mean((x[0] - x[1]) ** 2))
    found = tflib.run(projection.distance(_constant(pair[:1]), _constant(pair[1:])))
    np.testing.assert_allclose(found, np.mean(errors) + np.mean(features) / 2, rtol=1e-4)


def test_whiteness_against_numpy(graph):
    """Squared correlations with the neighbours to the right and below, at sizes 32, 16 and 8; a mean of four has half the deviation."""
    rng = np.random.RandomState(0)
    for noise in (rng.standard_normal([1, 1, 32, 32]), np.tile(np.repeat([1.0, -1.0], 4), [1, 1, 32, 4])):
        scales = [noise, 2 * halved(noise), 4 * halved(halved(noise))]
        expected = sum(np.mean(x * np.roll(x, 1, axis=axis)) ** 2 for x in scales for axis in (2, 3))
        np.testing.assert_allclose(tflib.run(projection.whiteness_penalty(_constant(noise))), expected, rtol=1e-4)


def _constant(array):
    return tf.constant(array, tf.float32)


def test_targets_are_cropped_and_scaled(tmp_path):
    pixels = np.zeros([30, 100, 3], np.uint8)
    pixels[:, 30:70] = 200  # the largest centred 3:4 crop is 40 wide
    PIL.Image.fromarray(pixels).save(str(tmp_path / "wide.png"))
    target = projection.read_target(str(tmp_path / "wide.png"), GeneratorConfig(resolution=8), 0.75)
    assert target.shape == (3, 6, 8) and (target == 200).all()
    gray = projection.read_target(str(tmp_path / "wide.png"), GeneratorConfig(resolution=8, num_channels=1), 1.0)
    assert gray.shape == (1, 8, 8) and (gray == 200).all()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # as stored by a phone held upright
    PIL.Image.fromarray(pixels.transpose(1, 0, 2)).save(str(tmp_path / "turned.png"), exif=exif)
    np.testing.assert_array_equal(projection.read_target(str(tmp_path / "turned.png"), GeneratorConfig(resolution=8), 0.75), target)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="--project .*text.png: not a readable image"):
        projection.read_target(str(tmp_path / "text.png"), GeneratorConfig(resolution=8), 1.0)


@pytest.mark.parametrize("arguments, code, text", [
    (["--project", "absent.png"], 1, "--project absent.png: there is no such file"),
    (["--project", "absent.png", "--seeds", "1"], 2, "--project and --seeds: give only one of them"),
    (["--project", "absent.png", "--video"], 2, "--project and --video"),
    (["--project", "absent.png", "--grid"], 2, "--project and --grid"),
    (["--project", "absent.png", "--grid", "False"], 1, "--project absent.png: there is no such file"),
    (["--project", "absent.png", "--attention-maps"], 2, "--project and --attention-maps"),
    (["--project", "absent.png", "--images-num", "4"], 2, "--project and --images-num"),
    (["--project", "absent.png", "--noise-mode", "random"], 2, "--noise-mode random: accepted with --project: const, none"),
])  # fmt: skip
def test_bad_input(arguments, code, text, picture_models, tmp_path, capsys):
    assert run_main(generate.main, ["--model", picture_models["ganformer"], "--output-dir", str(tmp_path), *arguments]) == code
    assert text in one_error_line(capsys.readouterr().err)
