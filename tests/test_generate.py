"""generate.py: pictures from a snapshot, through its command line."""

import functools
import hashlib
import http.server
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

import generate
from dnnlib import UsageError, UserError, run_main, tflib
from dnnlib.tflib.snapshot import read_records
from metrics.images import image_names, samples_record
from tests.cli_helpers import ROOT, command, finish
from tests.picture_models import assert_same_picture, expected_bytes, load_generator, one_error_line, read_png
from training import run_record
from training.networks import GeneratorConfig
from training.visualize import generate as generation
from training.visualize import movies, sampling


def latents(seeds, shape):
    return np.stack([tflib.numpy_stream(seed, "z").standard_normal(shape) for seed in seeds])


def sampled(path, seeds, psi=0.7, labels=None, **options):
    """Outputs of Gs for some seeds, from Network.run."""
    with tflib.session_scope():
        Gs = load_generator(path)
        return Gs.run(latents(seeds, Gs.input_shapes[0]), labels, truncation_psi=psi, noise_mode="const", **options)


def generated(*arguments):
    """Run in this process, where TensorFlow is already loaded."""
    return run_main(generate.main, [str(argument) for argument in arguments])


def test_help_is_instant():
    code = "import sys, generate\ntry:\n    generate.main(['--help'])\nexcept SystemExit:\n    print('tensorflow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "--truncation-psi" in out and out.endswith("False\n")


@pytest.mark.slow
def test_everything_at_once(picture_models, tmp_path):
    arguments = ["--model", picture_models["ganformer"], "--output-dir", tmp_path, "--seeds", "3,0-1", "--batch-size", "2", "--grid",
                 "--attention-maps", "--blending-alpha", "0.6", "--video", "--video-steps", "2", "--gpus", "cpu"]  # fmt: skip
    code, out, err = finish(*arguments, script="generate.py")
    assert code == 0, err
    assert "3 images in" in out
    numbers = ("000000", "000001", "000003")
    expected_files = {f"{kind}_{number}.png" for kind in ("sample", "map", "blend") for number in numbers}
    assert expected_files | {"grid.png", "samples.json", "video.gif"} == set(os.listdir(str(tmp_path))) - {"video.mp4"}

    reference = sampled(picture_models["ganformer"], [3, 0, 1], return_maps=True)
    pictures = expected_bytes(reference.images, ratio=0.75)
    assert pictures.shape == (3, 12, 16, 3)
    for seed, picture in zip((3, 0, 1), pictures):
        assert_same_picture(read_png(tmp_path, f"sample_{seed:06d}.png"), picture)
    grid = read_png(tmp_path, "grid.png")
    assert grid.shape == (24, 32, 3)
    np.testing.assert_array_equal(grid[12:, :16], read_png(tmp_path, "sample_000001.png"))
    assert not grid[12:, 16:].any()

    strongest = reference.maps[0, :, -1, 0, 2:14].argmax(axis=0)  # [12, 16], of seed 3
    coloured, blended = read_png(tmp_path, "map_000003.png"), read_png(tmp_path, "blend_000003.png")
    colours = {tuple(coloured[strongest == index][0]) for index in np.unique(strongest)}
    assert len(colours) == len(np.unique(strongest)) > 1
    np.testing.assert_allclose(blended, 0.6 * read_png(tmp_path, "sample_000003.png") + 0.4 * coloured, atol=0.51)
    with PIL.Image.open(str(tmp_path / "video.gif")) as video:
        assert video.n_frames == 6 and video.size == (16, 12)

    record = json.loads((tmp_path / "samples.json").read_text())
    assert [picture["seed"] for picture in record["pictures"]] == [3, 0, 1]
    assert record["truncation_psi"] == 0.7 and record["noise_mode"] == "const" and record["ratio"] == 0.75
    with open(picture_models["ganformer"], "rb") as file:
        assert record["model_sha256"] == hashlib.sha256(file.read()).hexdigest()
    assert record["command"] == " ".join(["python generate.py", *(shlex.quote(str(word)) for word in arguments)])


def test_a_picture_depends_on_its_seed_alone(picture_models, tmp_path, capsys):
    common = ["--model", picture_models["ganformer"], "--gpus", "cpu", "--noise-mode", "random"]
    assert generated(*common, "--images-num", 5, "--batch-size", 4, "--output-dir", tmp_path / "a") == 0
    assert generated(*common, "--seeds", "4,2", "--batch-size", 1, "--output-dir", tmp_path / "b") == 0
    for name in ("sample_000002.png", "sample_000004.png"):
        np.testing.assert_array_equal(read_png(tmp_path, "a", name), read_png(tmp_path, "b", name))
    assert (read_png(tmp_path, "a", "sample_000002.png") != read_png(tmp_path, "a", "sample_000004.png")).any()
    assert len([name for name in os.listdir(str(tmp_path / "a")) if name.endswith(".png")]) == 5
    capsys.readouterr()
    assert generated(*common, "--seeds", "4,9", "--attention-maps", "--grid", "--output-dir", tmp_path / "a") == 0
    note = "4 others there are of earlier commands, samples.json lists those of this one"
    assert capsys.readouterr().out.endswith(f"2 images in {tmp_path / 'a'}; {note}\n")
    taken = image_names(str(tmp_path / "a"), samples_record(str(tmp_path / "a")))  # by --eval --images-dir
    assert taken == (["sample_000004.png", "sample_000009.png"], 9)


def test_pictures_of_a_stopped_command_are_not_scored(picture_models, tmp_path, monkeypatch, capsys):
    common = ["--model", picture_models["ganformer"], "--gpus", "cpu", "--images-num", 2, "--output-dir", tmp_path]
    assert generated(*common) == 0

    def stopped(sampler, ws, seeds):
        raise UserError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(sampling.Sampler, "pictures", stopped)
        assert generated(*common, "--truncation-psi", 1) == 1
    with pytest.raises(UserError, match="generate.py did not finish; run it again, or remove samples.json to score all images there"):
        image_names(str(tmp_path), samples_record(str(tmp_path)))
    assert generated(*common) == 0
    assert image_names(str(tmp_path), samples_record(str(tmp_path)))[0] == ["sample_000000.png", "sample_000001.png"]


def test_noise_modes_and_truncation_differ(picture_models, tmp_path):
    pictures = []
    for options in (("random",), ("none",), ("const", "--truncation-psi", 1)):
        folder = tmp_path / "-".join(str(option) for option in options)
        common = ["--model", picture_models["ganformer"], "--gpus", "cpu", "--seeds", 7]
        assert generated(*common, "--output-dir", folder, "--noise-mode", *options) == 0
        pictures.append(read_png(folder, "sample_000007.png"))
        record = json.loads((folder / "samples.json").read_text())
        assert (record["noise_mode"], record["truncation_psi"]) == (options[0], 1 if len(options) > 1 else 0.7)
    for index, picture in enumerate(pictures):
        assert all((picture != other).any() for other in pictures[:index])
    assert_same_picture(pictures[2], expected_bytes(sampled(picture_models["ganformer"], [7], psi=1.0).images, ratio=0.75)[0])


def test_classes(picture_models, tmp_path, capsys):
    shutil.copy(picture_models["labelled"], str(tmp_path))
    dataset = {"dataset": {"label_names": ["cats", "dogs", "1"]}}
    run_record.write_record(str(tmp_path), {**dict.fromkeys(("options", *run_record.SECTIONS)), **dataset})
    common = ["--model", tmp_path / "labelled.pkl", "--gpus", "cpu", "--output-dir"]
    assert generated(*common, tmp_path / "a", "--class", 2, "--seeds", "0-1") == 0
    assert "labels: class 2, named 1, for each image\n" in capsys.readouterr().out  # a number is never a name
    assert json.loads((tmp_path / "a" / "samples.json").read_text())["label_names"] == ["cats", "dogs", "1"]
    assert generated(*common, tmp_path / "b", "--class", "0.5,0,2", "--seeds", "0-1") == 0
    assert generated(*common, tmp_path / "c", "--images-num", 16) == 0
    told = "labels: a random class of 3 for each image; choose one with --class N or its name (0 cats, 1 dogs, 2 1), or "
    assert capsys.readouterr().out.count(told) == 1
    for folder, label in (("a", [0, 0, 1]), ("b", [0.5, 0, 2])):
        expected = expected_bytes(sampled(picture_models["labelled"], [0, 1], labels=np.asarray([label, label])).images)
        for seed in (0, 1):
            assert_same_picture(read_png(tmp_path, folder, f"sample_{seed:06d}.png"), expected[seed])
    drawn = [picture["label"] for picture in json.loads((tmp_path / "c" / "samples.json").read_text())["pictures"]]
    assert {tuple(label) for label in drawn} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


@pytest.mark.parametrize("text, label", [("2", 2), ("0.5", [0.5]), ("1.0", [1]), ("-1e-1", [-0.1]), ("1,0", [1, 0]), ("red", "red"),
                                         ("nan,0,0", "nan,0,0"), ("1_0", "1_0")])  # fmt: skip
def test_labels(text, label):
    assert generate.parse_class(text) == label


def test_names_of_classes(capsys):
    names = [f"name{number}" for number in range(20)]
    assert generation._chosen_label("name7", "name7", 20, names) == 7
    assert generation._label_source(20, 7, names)(3).tolist() == np.eye(20)[7].tolist()
    assert capsys.readouterr().out == "labels: class 7, named name7, for each image\n"
    assert generation._label_source(2, 1, ["0", "1"])(3).tolist() == [0, 1]
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageError, match=r"--class x: accepted: a class number from 0 to 19.*, or a name: 0 name0, .*, 11 name11, \.\.\.$"):
        generation._chosen_label("x", "x", 20, names)
    with pytest.raises(UsageError, match="--class 10: this model has classes 0 to 2, of which 10 is the name of 1$"):
        generation._chosen_label("10", 10, 3, ["1", "10", "2"])


def test_a_label_of_a_single_number(capsys):
    """It may stand for a single class, where it is always 1, or be a measure: an integer could mean either."""
    assert generation._label_source(1, generation._chosen_label("0.3", [0.3], 1, []), [])(7) == np.float32([0.3])
    with pytest.raises(UsageError, match="--class 0: this model's label is a single number .* a decimal point, such as 1.0"):
        generation._chosen_label("0", 0, 1, ["cats"])
    assert capsys.readouterr().out == ""
    assert generation._label_source(1, None, [])(7) == [1]
    assert capsys.readouterr().out.startswith("labels: 1.0 for each image, as for a single class; choose another number with --class")


@pytest.mark.parametrize("name", ["ganformer", "labelled"])
def test_the_video_is_a_closed_walk(name, picture_models, tmp_path, monkeypatch, capsys):
    """Through the pictures in order; halfway points are spherical in z and linear in the label, with the noise of the previous picture."""
    walk, seeds = [], [4, 0, 1, 2]
    monkeypatch.setattr(movies, "save_movie", lambda frames, stem, fps: walk.extend(frames) or [f"{stem}.gif"])
    assert generated("--model", picture_models[name], "--gpus", "cpu", "--seeds", "4,0-2", "--noise-mode", "random", "--batch-size", 3,
                     "--video", "--video-steps", 2, "--output-dir", tmp_path) == 0  # fmt: skip
    assert "the video is a GIF only: there is no working ffmpeg" in capsys.readouterr().out
    pictures = json.loads((tmp_path / "samples.json").read_text())["pictures"]
    labels = np.stack([picture.get("label", []) for picture in pictures])
    assert name == "ganformer" or (labels != labels[0]).any()
    with tflib.session_scope():
        Gs = load_generator(picture_models[name])
        z = latents(seeds, Gs.input_shapes[0])
        units = z / np.linalg.norm(z, axis=-1, keepdims=True)
        cosine = np.sum(units * np.roll(units, -1, axis=0), axis=-1, keepdims=True)
        halfway = (z + np.roll(z, -1, axis=0)) / np.sqrt(2 + 2 * cosine)  # the weight sin(angle / 2) / sin(angle) for both
        mixed = (labels + np.roll(labels, -1, axis=0)) / 2
        found = Gs.run(halfway, mixed, seeds=np.asarray(seeds), truncation_psi=0.7, noise_mode="random").images
    between = expected_bytes(found, ratio=0.75 if name == "ganformer" else 1.0)
    assert len(walk) == 8
    for index, picture in enumerate(pictures):
        assert_same_picture(walk[2 * index].transpose(1, 2, 0), read_png(tmp_path, picture["file"]))
        assert_same_picture(walk[2 * index + 1].transpose(1, 2, 0), between[index])


def test_a_full_disk_is_one_line(picture_models, tmp_path):
    """Files may grow to only 1 kB (a process limit)."""
    words = command("--model", picture_models["ganformer"], "--gpus", "cpu", "--images-num", 4, "--grid", "--output-dir", tmp_path,
                    script="generate.py")  # fmt: skip
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))  # fmt: skip
    assert done.returncode == 1 and one_error_line(done.stderr) == f"error: {tmp_path / 'grid.png'}: File too large"
    assert len(list(tmp_path.glob("sample_*.png"))) == 4 and not list(tmp_path.glob("grid*")) and not list(tmp_path.glob(".*"))


def test_kgan_and_ratio(picture_models, tmp_path):
    arguments = ["--model", picture_models["kgan"], "--gpus", "cpu", "--output-dir", tmp_path, "--seeds", 5]
    assert generated(*arguments, "--ratio", 0.5) == 0
    expected = expected_bytes(sampled(picture_models["kgan"], [5]).images, ratio=0.5)[0]
    assert expected.shape == (4, 8, 3)
    assert_same_picture(read_png(tmp_path, "sample_000005.png"), expected)


@pytest.mark.parametrize("resolution, crop_ratio, accepted", [(512, 0.5, 0.5), (512, 0.6, 1), (256, 0.5, 1), (512, None, 1)])
def test_no_ratio_beyond_the_rows_that_the_network_computes(resolution, crop_ratio, accepted):
    config = GeneratorConfig(resolution=resolution, crop_ratio=crop_ratio)
    generation._check(config, SimpleNamespace(attention_maps=False, ratio=accepted))
    if accepted < 1:
        with pytest.raises(UsageError, match="--ratio 0.75: this model does not compute the padding, accepted: up to 0.5"):
            generation._check(config, SimpleNamespace(attention_maps=False, ratio=0.75))


def test_a_vitgan_has_the_ratio_of_its_dataset(picture_models, tmp_path, monkeypatch):
    records = read_records(picture_models["vitgan"])
    records[2].static_kwargs["crop_ratio"] = 0.5
    monkeypatch.setattr(generation, "read_records", lambda path: records)
    assert generated("--model", picture_models["vitgan"], "--gpus", "cpu", "--output-dir", tmp_path, "--seeds", 5) == 0
    assert read_png(tmp_path, "sample_000005.png").shape == (4, 8, 3)
    assert json.loads((tmp_path / "samples.json").read_text())["ratio"] == 0.5


def test_published_snapshots_have_the_ratio_of_their_dataset(picture_models, tmp_path, monkeypatch):
    """They need not store it; otherwise the pictures would show the padding."""
    monkeypatch.setattr(generate.option_table, "check_source", lambda flag, source: None)
    monkeypatch.setattr(generation, "local_path", lambda model: picture_models["kgan"])
    for model, height in (("gdrive:clevr-snapshot.pkl", 6), ("gdrive:ffhq-snapshot-1024.pkl", 8), ("clevr-snapshot.pkl", 8)):
        assert generated("--model", model, "--gpus", "cpu", "--output-dir", tmp_path, "--seeds", 5) == 0
        assert read_png(tmp_path, "sample_000005.png").shape == (height, 8, 3)


BAD_LINES = [
    ([], 2, "--model"),
    (["--model", "MISSING"], 1, "MISSING: there is no such file"),
    (["--model", "gdrive:fhq", "--output-dir", "FILE"], 1, "gdrive:fhq: not a published snapshot"),  # before the folder is looked at
    (["--model", "."], 1, "--model .: this is a folder, expected a file"),
    (["--model", "ganformer", "--seeds", "1,x"], 2, "--seeds: got '1,x'"),
    (["--model", "ganformer", "--seeds", "9-2"], 2, "--seeds: got the range 9-2"),
    (["--model", "ganformer", "--seeds", "1", "--images-num", "3"], 2, "--seeds and --images-num"),
    (["--model", "ganformer", "--images-num", "0"], 2, "--images-num: got 0"),
    (["--model", "ganformer", "--noise-mode", "loud"], 2, "expected one of const, random, none"),
    (["--model", "ganformer", "--truncation_psi", "1"], 2, "did you mean --truncation-psi?"),
    (["--model", "ganformer", "--video", "--seeds", "1"], 2, "--video: needs at least two seeds"),
    (["--model", "ganformer", "--gpus", "one"], 2, "--gpus: got 'one'"),
    (["--model", "ganformer", "--gpus", "0,0"], 2, "--gpus: got '0,0'"),
    (["--model", "ganformer", "--class", "red"], 1, "--class red: this model was trained without labels"),
    (["--model", "labelled", "--class", "red"], 2,
     "--class red: accepted: a class number from 0 to 2, a label vector a,b,c (names of classes are read from the config.json"),
    (["--model", "labelled", "--class", 400 * "9"], 2, "this model has classes 0 to 2"),
    (["--model", "ganformer", "--class", "1"], 1, "--class 1: this model was trained without labels"),
    (["--model", "labelled", "--class", "3"], 2, "--class 3: this model has classes 0 to 2"),
    (["--model", "labelled", "--class", "-1"], 2, "this model has classes 0 to 2"),
    (["--model", "labelled", "--class", "1,2"], 2, "a label of length 2, this model's labels have length 3"),
    (["--model", "labelled", "--class", "1,2,3,4"], 2, "a label of length 4, this model's labels have length 3"),
    (["--model", "labelled", "--attention-maps"], 1, "--attention-maps: this model has no attention"),
    (["--model", "truncated"], 1, "cannot be read"),
    (["--model", "page"], 1, "this is a web page"),
    (["--model", "ganformer", "--output-dir", "FILE"], 1, "--output-dir"),
]


@pytest.mark.parametrize("arguments, code, text", BAD_LINES, ids=[" ".join(line[0][1:]) or "nothing" for line in BAD_LINES])
def test_bad_input_is_one_line_before_any_network(arguments, code, text, picture_models, tmp_path, monkeypatch, capsys):
    def no_network(*_, **__):
        raise AssertionError("a network was built")

    monkeypatch.setattr(tflib.Network, "__init__", no_network)
    with open(picture_models["ganformer"], "rb") as file:
        (tmp_path / "truncated").write_bytes(file.read(10000))
    (tmp_path / "page").write_text("<!DOCTYPE html>")
    (tmp_path / "FILE").write_text("")
    paths = {"truncated": tmp_path / "truncated", "page": tmp_path / "page", "FILE": tmp_path / "FILE", **picture_models}
    if "--output-dir" not in arguments:
        arguments = arguments + ["--output-dir", str(tmp_path / "out")]
    assert generated(*[str(paths.get(argument, argument)) for argument in arguments]) == code
    assert text in one_error_line(capsys.readouterr().err)


def test_bad_input_through_the_shell(tmp_path):
    code, out, err = finish("--model", tmp_path / "absent.pkl", script="generate.py")
    assert (code, out) == (1, "")
    assert err == f"error: --model {tmp_path / 'absent.pkl'}: there is no such file\n"


@pytest.mark.parametrize("text, seeds", [
    ("7", [7]), ("1,5-8", [1, 5, 6, 7, 8]), ("3, 2-4,3", [3, 2, 4]), ("0-0", [0]), ("2147483647", [2**31 - 1]),
])  # fmt: skip
def test_seed_lists(text, seeds):
    assert generate.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "-3", "1-", "1,,2", "2147483648", "2147483647-2147483648", "1.5", "²"])
def test_bad_seed_lists(text):
    with pytest.raises(UsageError, match="--seeds"):
        generate.parse_seeds(text)


def test_model_from_a_url(picture_models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GANFORMER_CACHE", str(tmp_path / "cache"))
    handler = functools.partial(QuietHandler, directory=os.path.dirname(picture_models["labelled"]))
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert generated("--model", f"{address}/labelled.pkl", "--gpus", "cpu", "--seeds", 4, "--output-dir", tmp_path / "a") == 0
        assert generated("--model", f"{address}/absent.pkl", "--output-dir", tmp_path / "b") == 1
        assert "404" in one_error_line(capsys.readouterr().err)
        server.shutdown()
    assert generated("--model", f"{address}/labelled.pkl", "--gpus", "cpu", "--seeds", 4, "--output-dir", tmp_path / "c") == 0  # cached
    np.testing.assert_array_equal(*[read_png(tmp_path, folder, "sample_000004.png") for folder in ("a", "c")])


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, without a log."""

    def log_message(self, *_):
        pass
