"""The visualizations of run_network.py --vis, checked file by file against Network.run and their definitions."""

import contextlib
import json
import os
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf

import generate
import run_network
from dnnlib import UserError, run_main, tflib
from dnnlib.tflib import setup
from dnnlib.tflib.snapshot import read_records
from tests.cli_helpers import finish, write_raw_dataset
from tests.dataset_helpers import write_old_dataset
from tests.picture_models import assert_same_picture, dataset_for, expected_bytes, load_generator, one_error_line, read_png
from training import command_line, samples, visualize
from training.report import data
from training.visualize import colours, kinds, mixing, movies, sampling, showcase
from training.visualize import generate as generation

SEED = 3
HUES = np.asarray([(242, 13, 13), (13, 242, 13), (13, 13, 242)])  # 120 degrees apart, lightness 0.5, saturation 0.9


def visualized(models, name, folder, *arguments):
    """Run the visualizations as --vis does; returns the options."""
    options, _ = command_line.resolve(command_line.parse_given(["--vis", "--seed", str(SEED), *arguments]))
    with tflib.session_scope():
        visualize.run(load_generator(models[name]), dataset_for(name), options, str(folder))
    return options


def latents(indices, shape):
    return np.stack([tflib.numpy_stream(SEED * 1000000 + index, "z").standard_normal(shape) for index in indices])


def files(*parts):
    return sorted(os.listdir(os.path.join(*[str(part) for part in parts])))


@pytest.fixture(scope="module")
def defaults(picture_models, tmp_path_factory):
    """Folder with the GANformer's default set of visualizations."""
    folder = tmp_path_factory.mktemp("defaults")
    visualized(picture_models, "ganformer", folder, "--vis-num", "5", "--vis-rich-num", "2", "--interpolation-density", "3")
    return folder


@pytest.fixture(scope="module")
def reference(picture_models):
    """Outputs of Network.run for the samples of `defaults`, and the network's latents z."""
    with tflib.session_scope():
        Gs = load_generator(picture_models["ganformer"])
        z = latents(range(5), Gs.input_shapes[0])
        return z, Gs.run(z, truncation_psi=0.7, noise_mode="const", return_maps=True, return_ws=True)


def test_default_set(defaults):
    expected = {"images", "latents-z", "latents-w", "maps", "softmaps", "blends", "softblends", "interpolations-z", "interpolations-w",
                "noise-variance.png", "about.json"}  # fmt: skip
    assert set(files(defaults)) == expected
    for name in ("images", "maps", "softmaps", "blends", "softblends"):
        assert files(defaults, name) == [f"{index:06d}.png" for index in range(5)]
        for index in range(5):
            assert read_png(defaults, name, f"{index:06d}.png").shape == (12, 16, 3)


@pytest.mark.slow
def test_through_the_command_line(picture_models, tmp_path, defaults):
    write_raw_dataset(tmp_path, "blobs")
    common = ["--gpus", "cpu", "--data-dir", tmp_path, "--dataset", "blobs", "--ratio", "0.75", "--result-dir", tmp_path / "results"]
    snapshot = shutil.copy(picture_models["ganformer"], str(tmp_path / "network-snapshot-000012.pkl"))
    model = ["--pretrained-pkl", snapshot, "--seed", SEED]
    code, out, err = finish(*common, *model, "--vis-images", "--vis-maps", "--vis-num", "3")  # these options turn --vis on
    assert code == 0, err
    run_dir = tmp_path / "results" / "exp-000"
    assert f"visualizations (images, maps) in {run_dir / 'visuals'}" in out and f"report {run_dir / 'report.html'}" in out
    assert json.loads((run_dir / "visuals" / "about.json").read_text())["images"] == {"seed": 3, "truncation_psi": 0.7, "images": 12000}
    assert files(run_dir, "visuals", "images") == files(run_dir, "visuals", "maps") == ["000000.png", "000001.png", "000002.png"]
    for name in ("images", "maps"):
        assert_same_picture(read_png(run_dir, "visuals", name, "000002.png"), read_png(defaults, name, "000002.png"))
    code, out, err = finish(*common, "--pretrained-pkl", picture_models["kgan"], "--vis-maps")
    assert code == 1 and one_error_line(err).startswith("error: --vis-maps: this model has no attention maps")


def test_out_of_memory_names_the_flag(picture_models, tmp_path, monkeypatch, capsys):
    datasets = []

    def exhausted(first, second, *arguments, **more):
        datasets.append(second)
        raise tf.errors.ResourceExhaustedError(None, None, "Graph execution error:\n\nOOM when allocating")

    write_old_dataset(tmp_path / "blobs", "blobs", np.zeros([4, 3, 16, 16], np.uint8), np.eye(2)[[0, 1, 1, 0]])
    monkeypatch.setattr(visualize, "run", exhausted)
    monkeypatch.setattr(generation, "_pictures", exhausted)
    monkeypatch.setattr(generation.projection, "project", exhausted)
    PIL.Image.new("RGB", (16, 12)).save(str(tmp_path / "one.png"))
    place = ["--data-dir", tmp_path, "--dataset", "blobs", "--ratio", "0.75", "--result-dir", tmp_path / "results"]
    vis = ["--vis", "--pretrained-pkl", picture_models["ganformer"], "--batch-gpu", "2", *place]
    pictures = ["--model", picture_models["ganformer"], "--batch-size", "3", "--output-dir", tmp_path / "images"]
    one = [*pictures, "--project", tmp_path / "one.png"]
    cases = ((run_network.main, vis, "lower --eval-batch-gpu (now 2)"), (generate.main, pictures, "lower --batch-size (now 3)"),
             (generate.main, [*pictures, "--batch-size", "1"], "even with one image at a time: use a machine with more memory"),
             (generate.main, one, "even with one image at a time: try --gpus cpu"))  # fmt: skip
    for main, words, advice in cases:
        if advice.endswith("try --gpus cpu"):
            monkeypatch.setattr(setup, "devices", lambda: ["/gpu:0"])
        assert run_main(main, ["--gpus", "cpu", *map(str, words)]) == 1
        out, err = capsys.readouterr()
        assert one_error_line(err) == f"error: out of memory, {advice} (OOM when allocating)"
        assert ("dataset blobs: its labels are not used" in out) == (main == run_network.main)
    assert datasets[0].labels.shape == (4, 0)  # as for the trained network


def test_out_of_memory_in_the_pictures_of_a_training_names_the_flag(tmp_path, monkeypatch):
    Gs = SimpleNamespace(config=SimpleNamespace(has_attention=False), input_shapes=[[2, 4], [0]])
    dataset = SimpleNamespace(resolution=16, count=4, labels=np.zeros([4, 0]), ratio=1.0)

    def exhausted(*arguments, **more):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(kinds, "run", exhausted)
    monkeypatch.setattr(sampling.Sampler, "ws", exhausted)
    with pytest.raises(UserError, match="out of memory, lower --eval-batch-gpu [(]now 2[)]"):
        showcase.run(Gs, dataset, command_line.Options(eval_batch_gpu=2), str(tmp_path), shown=0)
    with pytest.raises(UserError, match="out of memory, lower --eval-batch-gpu [(]now 2[)]"):
        samples.SampleGrid(str(tmp_path), dataset, Gs, 0, 0.7, True).write(Gs, 0, batch_size=2)


def test_images_and_latents_are_those_of_the_network(defaults, reference):
    z, outputs = reference
    pictures = expected_bytes(outputs.images, ratio=0.75)
    for index in range(5):
        assert_same_picture(read_png(defaults, "images", f"{index:06d}.png"), pictures[index])
        np.testing.assert_allclose(np.load(str(defaults / "latents-z" / f"{index:06d}.npy")), z[index], rtol=1e-6)
        w = np.load(str(defaults / "latents-w" / f"{index:06d}.npy"))
        assert w.shape == (4, 8)
        np.testing.assert_allclose(w, outputs.ws[index, :, 0], rtol=1e-4, atol=1e-5)


def test_maps_show_the_last_layer(defaults, reference):
    maps = reference[1].maps[:, :, -1, 0, 2:14]  # [5, k, 12, 16]
    for index in range(5):
        segmentation, soft = (read_png(defaults, name, f"{index:06d}.png").astype(int) for name in ("maps", "softmaps"))
        expected = HUES[maps[index].argmax(axis=0)]
        clear = np.diff(np.sort(maps[index], axis=0)[-2:], axis=0)[0] > 1e-4
        np.testing.assert_array_equal(segmentation[clear], expected[clear])
        shares = maps[index] / maps[index].sum(axis=0)
        np.testing.assert_allclose(soft, np.tensordot(shares, HUES, axes=[0, 0]), atol=1.0)
        picture = read_png(defaults, "images", f"{index:06d}.png")
        for coloured, name in ((segmentation, "blends"), (soft, "softblends")):
            np.testing.assert_allclose(read_png(defaults, name, f"{index:06d}.png"), 0.3 * picture + 0.7 * coloured, atol=0.51)
    assert len({read_png(defaults, "maps", f"{index:06d}.png").tobytes() for index in range(5)}) > 1


def test_interpolations_end_at_their_ends(defaults):
    for space in ("z", "w"):
        assert files(defaults, f"interpolations-{space}") == ["000000", "000001"]
        for index in (0, 1):
            folder = defaults / f"interpolations-{space}" / f"{index:06d}"
            assert {"all.gif", "all.png"} <= set(files(folder)) <= {"all.gif", "all.png", "all.mp4"}
            strip = read_png(folder, "all.png")
            assert strip.shape == (12, 5 * 16, 3)
            frames = strip.reshape([12, 5, 16, 3]).transpose(1, 0, 2, 3)
            assert_same_picture(frames[0], read_png(defaults, "images", f"{index:06d}.png"))
            assert_same_picture(frames[-1], read_png(defaults, "images", f"{index + 1:06d}.png"))
            assert all((frames[i] != frames[i + 1]).any() for i in range(4))
            with PIL.Image.open(str(folder / "all.gif")) as movie:
                assert movie.n_frames == 5 and movie.size == (16, 12)


def test_halfway_is_spherical_in_z_and_straight_in_w(defaults, reference, picture_models):
    z, outputs = reference
    units = z / np.linalg.norm(z, axis=-1, keepdims=True)
    halfway = (z[0] + z[1]) / np.sqrt(2 + 2 * np.sum(units[0] * units[1], axis=-1, keepdims=True))  # sin(angle / 2) / sin(angle) for both
    with tflib.session_scope():
        Gs = load_generator(picture_models["ganformer"])
        found = Gs.run(halfway[np.newaxis], truncation_psi=0.7), Gs.run_part("synthesis", outputs.ws[:2].mean(axis=0)[np.newaxis])
    for space, outputs in zip("zw", found):
        strip = read_png(defaults, f"interpolations-{space}", "000000", "all.png")
        assert_same_picture(strip[:, 32:48], expected_bytes(outputs.images, ratio=0.75)[0])


def test_noise_variation_shows_the_noise(defaults, picture_models, tmp_path):
    picture = read_png(defaults, "noise-variance.png")
    assert picture.shape == (12, 16)
    assert picture.max() > 0
    with pytest.raises(UserError, match="--vis-noise-var: this model has no noise"):
        visualized(picture_models, "labelled", tmp_path, "--vis-noise-var")
    assert files(tmp_path) == []


def test_noise_variation_is_the_standard_deviation(picture_models, tmp_path):
    arguments = ["--vis-noise-var", "--truncation-psi", "0.5", "--batch-gpu", "8", "--ratio", "0.5"]
    visualized(picture_models, "ganformer", tmp_path, *arguments)
    with tflib.session_scope():
        Gs = load_generator(picture_models["ganformer"])
        z = np.repeat(latents([0], Gs.input_shapes[0]), 100, axis=0)
        images = Gs.run(z, truncation_psi=0.5, noise_mode="random", seeds=np.arange(100), batch_size=50).images
    gray = np.clip(images.astype(np.float64), -1, 1).mean(axis=1) * 127.5
    expected = np.clip(4 * gray.std(axis=0), 0, 255)[4:12]
    assert np.abs(read_png(tmp_path, "noise-variance.png") - np.floor(expected)).max() <= 1


def test_a_deviation_of_64_or_more_is_white(tmp_path):
    def raw(ws, seeds, noise_mode):
        return np.tile(np.where(np.arange(len(seeds)) % 2, 1.0, -1.0)[:, None, None, None], [1, 3, 4, 4])

    sampler = SimpleNamespace(ratio=1.0, ws_of_seeds=np.zeros, raw=raw, batches=lambda rows, progress: [rows],
                              bar=lambda *arguments: contextlib.nullcontext())  # fmt: skip
    kinds.noise_variation(sampler, SimpleNamespace(seed=0), str(tmp_path))
    assert (read_png(tmp_path, "noise-variance.png") == 255).all()


def spied(monkeypatch, method="pictures_and_maps"):
    """List that records how many pictures are computed at once by a method of samplers, by default with their maps."""
    sizes, compute = [], getattr(sampling.Sampler, method)
    monkeypatch.setattr(sampling.Sampler, method, lambda self, ws, seeds=None: sizes.append(len(ws)) or compute(self, ws, seeds))
    return sizes


@pytest.mark.parametrize("asked, pictures, with_maps", [
    (["--vis-layer-maps"], [], [1]), (["--vis-layer-maps", "--vis-images"], [1, 1], [1]), (["--vis-latents"], [], []),
    (["--vis-interpolations", "--interpolation-density", "1"], [3, 3], []),
])  # fmt: skip
def test_no_more_is_computed_than_is_written(asked, pictures, with_maps, picture_models, tmp_path, monkeypatch):
    found = spied(monkeypatch, "pictures"), spied(monkeypatch)
    visualized(picture_models, "alpha", tmp_path, *asked, "--vis-num", "3", "--vis-rich-num", "1", "--vis-section-size", "1")
    assert found == (pictures, with_maps)


def test_the_entries_of_other_visualizations_are_kept(tmp_path):
    (tmp_path / "about.json").write_text('{"maps": {"seed": 0}, "images": {"seed": 1}, "of an earlier version": {}}')
    kinds._update_about(str(tmp_path), ["images"], {"images": {"seed": 2}})
    assert json.loads((tmp_path / "about.json").read_text()) == {"maps": {"seed": 0}, "images": {"seed": 2}}


def test_sections_do_not_change_the_files(defaults, picture_models, tmp_path, monkeypatch):
    sizes = spied(monkeypatch)
    arguments = ["--vis-images", "--vis-latents", "--vis-maps", "--vis-num", "5", "--vis-section-size", "2", "--eval-batch-gpu", "1"]
    visualized(picture_models, "ganformer", tmp_path, *arguments)
    assert sizes == [1] * 5
    for name in ("images", "maps", "blends", "latents-w"):
        assert files(tmp_path, name) == files(defaults, name)
    for index in range(5):
        assert_same_picture(read_png(tmp_path, "images", f"{index:06d}.png"), read_png(defaults, "images", f"{index:06d}.png"))


def test_layer_maps_grid_and_components(picture_models, tmp_path, reference):
    (tmp_path / "layer_maps" / "000000").mkdir(parents=True)
    (tmp_path / "layer_maps" / "000000" / "l99_h0.png").write_text("of an earlier, deeper model")
    arguments = ["--vis-images", "--vis-grid", "--vis-num", "5", "--vis-layer-maps", "--vis-rich-num", "2", "--vis-interpolations",
                 "--interpolation-per-component", "--interpolation-density", "1"]  # fmt: skip
    visualized(picture_models, "ganformer", tmp_path, *arguments)
    grid = read_png(tmp_path, "images-grid.png")
    assert grid.shape == (2 * 12, 3 * 16, 3) and files(tmp_path, "images") == []
    assert_same_picture(grid[12:, 16:32], expected_bytes(reference[1].images, ratio=0.75)[4])

    maps = reference[1].maps  # [5, k, layers, h, H, W]
    layers, heads = maps.shape[2:4]
    assert (layers, heads) == (5, 2)
    assert files(tmp_path, "layer_maps") == ["000000", "000001"]
    for index in range(2):
        maps_names = sorted(f"l{i}_h{j}.png" for i in range(layers) for j in range(heads))
        assert files(tmp_path, "layer_maps", f"{index:06d}") == ["image.png", *maps_names]
        shown = read_png(tmp_path, "layer_maps", f"{index:06d}", "image.png")
        assert_same_picture(shown, expected_bytes(reference[1].images, ratio=0.75)[index])
        for layer, head in np.ndindex(layers, heads):
            own = maps[index, :, layer, head, 2:14]
            clear = np.diff(np.sort(own, axis=0)[-2:], axis=0)[0] > 1e-4
            coloured = read_png(tmp_path, "layer_maps", f"{index:06d}", f"l{layer}_h{head}.png")
            np.testing.assert_array_equal(coloured[clear], HUES[own.argmax(axis=0)][clear])

    moved = [np.repeat(pair[:1], 4, axis=0) for pair in (reference[0], reference[1].ws)]
    for component in range(4):  # the others stay as in sample 0
        moved[0][component, component] = reference[0][1, component]
        moved[1][component, component] = reference[1].ws[1, component]
    with tflib.session_scope():
        Gs = load_generator(picture_models["ganformer"])
        found = Gs.run(moved[0], truncation_psi=0.7), Gs.run_part("synthesis", moved[1])
    for space, outputs in zip("zw", found):
        folder, ends = tmp_path / f"interpolations-{space}" / "000000", expected_bytes(outputs.images, ratio=0.75)
        names = {name for name in files(folder) if not name.endswith(".mp4")}
        assert names == {f"component_{index:02d}.{ending}" for index in range(4) for ending in ("gif", "png")}
        for index in range(4):
            assert_same_picture(read_png(folder, f"component_{index:02d}.png")[:, 32:], ends[index])


@pytest.mark.parametrize("name", ["labelled", "kgan"])
def test_models_without_attention(name, picture_models, tmp_path, capsys):
    stale = [tmp_path / name for name in ("images/000007.png", "latents-w/000007.npy", "interpolations-z/000007/all.gif")]
    for path in (*stale, tmp_path / "images" / "notes.txt"):  # files of an earlier call with more samples, and one of the user's own
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    visualized(picture_models, name, tmp_path, "--vis-num", "2", "--vis-rich-num", "1", "--interpolation-density", "1")
    acting = {"noise-variance.png"} if name == "kgan" else set()  # the other model has no noise
    assert set(files(tmp_path)) == {"images", "latents-z", "latents-w", "interpolations-z", "interpolations-w", "about.json"} | acting
    told = "this model has no attention to latents: no maps" + ("" if acting else "; this model has no noise: no noise_var")
    assert f"; {told}\n" in capsys.readouterr().out
    assert not any(path.exists() for path in stale) and (tmp_path / "images" / "notes.txt").exists()
    ends = read_png(tmp_path, "interpolations-z", "000000", "all.png")
    for index, end in enumerate((ends[:, :8], ends[:, 16:])):
        assert_same_picture(end, read_png(tmp_path, "images", f"{index:06d}.png"))


def test_samples_have_labels_of_the_dataset(picture_models, tmp_path):
    visualized(picture_models, "labelled", tmp_path, "--vis-images", "--vis-num", "6")
    with tflib.session_scope():
        Gs = load_generator(picture_models["labelled"])
        z = np.repeat(latents(range(6), Gs.input_shapes[0]), 3, axis=0)
        pictures = expected_bytes(Gs.run(z, np.tile(np.eye(3), [6, 1]), truncation_psi=0.7).images).reshape([6, 3, 8, 8, 3])
    found = [read_png(tmp_path, "images", f"{index:06d}.png").astype(int) for index in range(6)]
    away = [[np.abs(picture - own[label]).max() for label in range(3)] for picture, own in zip(found, pictures)]  # [6, 3]
    assert np.min(away, axis=1).max() <= 1 and len(set(np.argmin(away, axis=1))) > 1


def test_pictures_with_alpha(picture_models, tmp_path):
    few = ["--vis-num", "2", "--vis-rich-num", "1", "--interpolation-density", "1"]
    visualized(picture_models, "alpha", tmp_path, *few, "--blending-alpha", "0.6")
    picture, segments = read_png(tmp_path, "images", "000001.png"), read_png(tmp_path, "maps", "000001.png")
    assert picture.shape == (8, 8, 4) and segments.shape == (8, 8, 3)
    blended = np.round(0.6 * picture[:, :, :3].astype(float) + 0.4 * segments)
    np.testing.assert_allclose(read_png(tmp_path, "blends", "000001.png"), blended, atol=1)


def test_the_label_moves_with_all_latents_only():
    z, labels = np.random.RandomState(0).standard_normal([2, 4, 6]), np.eye(3)[:2]
    for components, halfway in ((slice(None), [0.5, 0.5, 0]), (slice(1, 2), [1, 0, 0])):
        path, own = kinds.z_path(z, labels, [0.5], components)
        np.testing.assert_array_equal(own, [halfway])
        assert np.array_equal((path[0] != z[0]).all(axis=1), np.isin(range(4), range(4)[components]))


def test_vitgan(picture_models, tmp_path):
    kinds = [f"--vis-{kind}" for kind in ("images", "maps", "layer-maps", "style-mix")]
    visualized(picture_models, "vitgan", tmp_path, *kinds, "--vis-num", "2", "--vis-rich-num", "1")
    with tflib.session_scope():
        Gs = load_generator(picture_models["vitgan"])
        outputs = Gs.run(latents([1], Gs.input_shapes[0]), truncation_psi=0.7, return_maps=True)
    assert_same_picture(read_png(tmp_path, "images", "000001.png"), expected_bytes(outputs.images)[0])
    owners = outputs.maps[0, :, -1, 0].argmax(axis=0)  # [8, 8]: the token that each of the 4 patches attends to most
    shown = read_png(tmp_path, "maps", "000001.png")
    assert len({tuple(shown[owners == owner][0]) for owner in np.unique(owners)}) == len(np.unique(owners))
    assert files(tmp_path, "layer_maps", "000000") == ["image.png", "l0_h0.png", "l0_h1.png", "l1_h0.png", "l1_h1.png"]
    assert "layer-mixing.png" in files(tmp_path) and "component-mixing.png" not in files(tmp_path)
    assert json.loads((tmp_path / "about.json").read_text())["layer_maps"]["attended"] == "token"


def test_a_snapshot_of_a_training_feeds_the_report(picture_models, tmp_path, capsys, monkeypatch):
    hidden, bar = [], sampling.tqdm
    monkeypatch.setattr(sampling, "tqdm", lambda **given: hidden.append(given["disable"]) or bar(**given))
    options, _ = command_line.resolve(command_line.parse_given(["--vis-num", "50", "--interpolation-density", "1"]))
    with tflib.session_scope():
        showcase.run(load_generator(picture_models["ganformer"]), dataset_for("ganformer"), options, str(tmp_path), shown=24000)
    assert capsys.readouterr() == ("", "") and set(hidden) == {True}
    content = data.gather(str(tmp_path))
    (explorer,) = content["explorers"]
    assert explorer["note"] == "24 kimg, truncation 0.7, seed 0" and explorer["grids"] == [4, 8, 8, 16, 16]
    assert explorer["attended"] == "latent"
    assert [len(sample["layers"]) for sample in explorer["samples"]] == [5] * 4
    assert all(len(heads) == 2 for heads in explorer["samples"][0]["layers"])
    assert [len(strips["rows"]) for strips in content["strips"]] == [4, 4]
    assert files(tmp_path, "visuals", "snapshot", "interpolations-z", "000003") == ["all.png"]
    assert len(files(tmp_path, "visuals", "snapshot", "images")) == 4
    with tflib.session_scope():
        showcase.run(load_generator(picture_models["kgan"]), dataset_for("kgan"), options, str(tmp_path / "kgan"), shown=0)
    assert len(data.gather(str(tmp_path / "kgan"))["strips"]) == 2  # and no maps, since the model has none


def test_the_report_pairs_maps_with_their_own_pictures_only(picture_models, tmp_path):
    folder, few = tmp_path / "visuals", ["--vis-num", "1", "--vis-rich-num", "1"]
    visualized(picture_models, "ganformer", folder, "--vis-layer-maps", *few)
    (explorer,) = data.gather(str(tmp_path))["explorers"]
    visualized(picture_models, "ganformer", folder, "--vis-images", "--truncation-psi", "0.5", *few)  # other pictures
    assert data.gather(str(tmp_path))["explorers"] == [explorer]


def test_the_report_does_not_take_what_an_earlier_call_left_for_new(picture_models, tmp_path, monkeypatch):
    folder, few = tmp_path / "visuals", ["--vis-images", "--vis-num", "1"]
    visualized(picture_models, "kgan", folder, *few, "--vis-grid")
    assert [picture["title"] for picture in data.gather(str(tmp_path))["others"]] == ["Samples"]
    visualized(picture_models, "kgan", folder, *few, "--truncation-psi", "0.5")
    assert data.gather(str(tmp_path))["others"] == [] and "images-grid.png" not in files(folder)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling.Sampler, "pictures", stopped)
    with pytest.raises(KeyboardInterrupt):
        visualized(picture_models, "kgan", folder, *few)
    assert json.loads((folder / "about.json").read_text()) == {}


@pytest.mark.parametrize("flag", ["--vis-maps", "--vis-layer-maps"])
@pytest.mark.parametrize("name", ["labelled", "kgan"])
def test_maps_of_a_model_without_attention_are_an_error(name, flag, picture_models):
    options, _ = command_line.resolve(command_line.parse_given([flag]))
    with pytest.raises(UserError, match=f"{flag}: this model has no attention maps"):
        visualize.check(read_records(picture_models[name])[2], dataset_for(name), options)


def test_a_dataset_with_other_labels_is_an_error(picture_models):
    options, _ = command_line.resolve(command_line.parse_given(["--vis"]))
    record = read_records(picture_models["labelled"])[2]
    visualize.check(record, dataset_for("labelled"), options)
    with pytest.raises(UserError, match="its labels have width 0, the snapshot was trained with width 3"):
        visualize.check(record, dataset_for("kgan"), options)
    with pytest.raises(UserError, match="expected a generator"):
        sampling.snapshot_config(read_records(picture_models["labelled"])[1])


def test_style_mixing_tables(picture_models, tmp_path, capsys):
    visualized(picture_models, "ganformer", tmp_path, "--vis-style-mix")
    assert files(tmp_path) == ["about.json", "component-mixing.png", "layer-mixing.png"]
    with tflib.session_scope():
        Gs = load_generator(picture_models["ganformer"])
        ws = Gs.run_part("mapping", latents(range(6), Gs.input_shapes[0]), truncation_psi=0.7).ws  # [6, K, L, w_dim]
        L = ws.shape[2]
        cuts = [int(round(cut * L / 15)) for cut in (2, 5, 8, 11)]
        mixed = np.concatenate([ws[0:1, :, : cuts[1]], ws[4:5, :, cuts[1] :]], axis=2)
        components = np.concatenate([ws[1:2, :1], ws[5:6, 1:]], axis=1)
        cells = expected_bytes(Gs.run_part("synthesis", np.concatenate([ws, mixed, components])).images, ratio=0.75)
    table = read_png(tmp_path, "layer-mixing.png")
    left = 5 * 16 + 8  # of the second table
    assert table.shape == (3 * 12, 4 * 5 * 16 + 3 * 8, 3)
    assert (table[:12, :16] == 255).all() and (table[:, left - 8 : left] == 255).all()
    for row in range(2):
        assert_same_picture(table[12 * (row + 1) : 12 * (row + 2), left : left + 16], cells[row])
    for column in range(4):
        assert_same_picture(table[:12, left + 16 * (column + 1) : left + 16 * (column + 2)], cells[2 + column])
    assert_same_picture(table[12:24, left + 16 * 3 : left + 16 * 4], cells[6])  # row source 0, column source 4
    table = read_png(tmp_path, "component-mixing.png")
    assert_same_picture(table[24:36, 16 * 4 : 16 * 5], cells[7])  # first cut is 1: row source 1, column source 5

    visualized(picture_models, "labelled", tmp_path / "one", "--vis-style-mix", "--vis-images", "--vis-num", "6")
    assert files(tmp_path, "one") == ["about.json", "images", "layer-mixing.png"]
    table = read_png(tmp_path, "one", "layer-mixing.png")
    for index, (row, column) in enumerate([(1, 0), (2, 0), (0, 1), (0, 2), (0, 3), (0, 4)]):  # the sources, each with its own label
        shown = table[8 * row : 8 * (row + 1), 8 * column : 8 * (column + 1)]
        assert_same_picture(shown, read_png(tmp_path, "one", "images", f"{index:06d}.png"))
    assert "component-mixing: this model has a single latent" in capsys.readouterr().out


@pytest.mark.parametrize("count, cuts", [(15, [2, 5, 8, 11]), (7, [1, 2, 4, 5]), (30, [4, 10, 16, 22]), (3, [1, 2]), (2, [1]), (1, [])])
def test_cuts_are_scaled(count, cuts):
    assert mixing.scaled_cuts(count) == cuts


def test_slerp_keeps_angles():
    a, b = np.asarray([[2.0, 0.0], [1.0, 1.0]]), np.asarray([[0.0, 3.0], [2.0, 2.0]])
    third = sampling.slerp(a, b, 1 / 3)
    np.testing.assert_allclose(third[0], [2 * np.cos(np.pi / 6), 3 * np.sin(np.pi / 6)], rtol=1e-6)  # 30 of 90 degrees
    np.testing.assert_allclose(third[1], [4 / 3, 4 / 3], rtol=1e-6)  # parallel: straight
    np.testing.assert_array_equal(sampling.slerp(a, b, 0.0), a)
    np.testing.assert_allclose(sampling.slerp(a, b, 1.0), b, atol=1e-6)
    axis = np.ones([1, 3])  # as computed, the angle to its multiple has the cosine 1 + 2e-16
    np.testing.assert_allclose(sampling.slerp(axis, 2 * axis, 0.5), 1.5 * axis)


def test_as_many_maps_are_held_as_a_quarter_of_a_gigabyte_takes():
    """16 maps of 1024 x 1024 pixels with 4 bytes each take 64 MiB."""
    for resolution, batch_size, held in ((1024, 8, 4), (1024, 2, 2), (4096, 8, 1)):
        config = SimpleNamespace(maps_num=16, resolution=resolution)
        Gs = SimpleNamespace(input_shapes=[[1, 8], [0]], config=config)
        assert sampling.Sampler(Gs, 1.0, 0.7, batch_size).maps_batch() == held


def test_quiet_samplers_show_no_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True, write=len, flush=bool))
    Gs = SimpleNamespace(input_shapes=[[1, 8], [0]])
    bars = [sampling.Sampler(Gs, 1.0, 0.7, 1, quiet=quiet).bar(1, "samples", "img") for quiet in (True, False)]
    assert [bool(bar.disable) for bar in bars] == [True, False]


def test_no_more_maps_are_held(picture_models, tmp_path, monkeypatch):
    sizes = spied(monkeypatch)
    monkeypatch.setattr(sampling, "MAPS_MEMORY", 1)
    visualized(picture_models, "alpha", tmp_path / "a", "--vis-maps", "--vis-num", "2")
    words = ["--model", picture_models["alpha"], "--gpus", "cpu", "--images-num", "2", "--attention-maps", "--output-dir", tmp_path / "b"]
    assert run_main(generate.main, list(map(str, words))) == 0
    assert sizes == [1] * 4


def test_the_ratio_is_the_one_given_else_the_snapshots_else_the_datasets():
    stored, unstored = (SimpleNamespace(crop_ratio=ratio) for ratio in (0.5, None))
    found = [sampling.picture_ratio(*arguments) for arguments in
             ((0.25, stored, 0.75), (None, stored, 0.75), (None, unstored, 0.75), (None, unstored))]  # fmt: skip
    assert found == [0.25, 0.5, 0.75, 1]


def test_mixture_of_gated_maps():
    maps = np.zeros([2, 1, 3])
    maps[:, 0] = [[0.5, 0.0, 0.1], [0.0, 0.0, 0.3]]  # they need not sum to 1, and may all be zero
    first, second = colours.palette(2).astype(float)
    np.testing.assert_allclose(colours.mixture(maps)[:, 0].T, [first, [0, 0, 0], np.round(0.25 * first + 0.75 * second)], atol=1)
    with np.errstate(all="raise"):
        assert not colours.mixture(np.zeros([3, 2, 2])).any()


@pytest.mark.parametrize("channels, pixels", [(1, "gray"), (3, "rgb24"), (4, "rgba")])
def test_movie_without_and_with_ffmpeg(channels, pixels, tmp_path, monkeypatch, capsys):
    frames = np.random.RandomState(0).randint(256, size=[3, channels, 5, 7]).astype(np.uint8)
    monkeypatch.setenv("PATH", "")
    assert movies.save_movie(frames, str(tmp_path / "a"), 8) == [str(tmp_path / "a.gif")]
    with PIL.Image.open(str(tmp_path / "a.gif")) as movie:
        assert movie.n_frames == 3 and movie.size == (7, 5)
        assert movie.info["loop"] == 0 and movie.info["duration"] in (120, 130)  # for ever; in hundredths of a second
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\necho "$@" > "$ARGS"; for last; do :; done; /bin/cat > "$last"\n')
    program.chmod(0o755)
    monkeypatch.setenv("ARGS", str(tmp_path / "args"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert movies.save_movie(iter(frames), str(tmp_path / "b"), 8) == [str(tmp_path / "b.gif"), str(tmp_path / "b.mp4")]
    assert (tmp_path / "b.mp4").read_bytes() == frames.transpose(0, 2, 3, 1).tobytes()
    given = (tmp_path / "args").read_text()
    assert f"-f rawvideo -pix_fmt {pixels} -s 7x5 -r 8" in given
    # Browsers play 4:2:0 colours, which need even sizes; the temporary file's extension does not reveal the format.
    assert "-vf pad=ceil(iw/2)*2:ceil(ih/2)*2 -pix_fmt yuv420p" in given and " -f mp4 " in given
    big = np.tile(frames, [1, 1, 100, 100])  # more than a pipe holds
    for script, code, reason in (("echo no such codec >&2", 1, "no such codec"), ("echo half > $out", 0, "no reason given"),
                                 ("/bin/cat > $out; echo disk full >&2", 1, "disk full")):  # fmt: skip
        program.write_text(f"#!/bin/sh\nfor out; do :; done; {script}; exit {code}\n")
        assert movies.save_movie(big, str(tmp_path / "c"), 8) == [str(tmp_path / "c.gif")]
        with PIL.Image.open(str(tmp_path / "c.gif")) as movie:
            assert movie.n_frames == 3
        assert f"warning: ffmpeg could not write {tmp_path / 'c.mp4'}: {reason}\n" == capsys.readouterr().err

    def interrupted():
        yield from frames[:2]
        raise KeyboardInterrupt

    program.write_text('#!/bin/sh\nfor last; do :; done; /bin/cat > "$last"\n')
    with pytest.raises(KeyboardInterrupt):
        movies.save_movie(interrupted(), str(tmp_path / "d"), 8)
    assert not [name for name in files(tmp_path) if name.startswith(("c.mp4", "d", "."))]
