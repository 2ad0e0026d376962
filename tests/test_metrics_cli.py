"""Evaluation as users run it: run_network.py --eval on a trained run and on a folder, and its one-line answers to bad input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

import run_network
from dnnlib import UserError, run_main
from tests.cli_helpers import ROOT, SMALL, finish, start, write_raw_dataset
from tests.conftest import on_one_stack
from tests.metrics_standins import inception_standin, write_features_dir
from training.dataset import Dataset

pytestmark = pytest.mark.slow

GRAPH = "classify_image_graph_def.pb"
VGG = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
COUNT = 80
# The number that comes first in each metric's line.
FIRST_NUMBERS = {name: name for name in ("fid", "is", "kid", "swd", "ppl", "ppl_zfull", "ppl_wfull", "ppl_zend", "ppl_wend")}
FIRST_NUMBERS["pr"] = "precision"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a dataset, its pictures as PNG files, stand-in feature networks, its own cache, and a trained run."""
    folder = tmp_path_factory.mktemp("evaluation")
    dataset = Dataset(write_raw_dataset(folder / "data", resolution=32, count=COUNT))
    (folder / "pictures").mkdir()
    for index, picture in enumerate(dataset.read(np.arange(COUNT))):
        Image.fromarray(picture.transpose(1, 2, 0)).save(str(folder / "pictures" / f"{index:03d}.png"))
    (folder / "features").mkdir()
    write_features_dir(folder / "features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANFORMER_CACHE", str(folder / "cache"))
        code, _, err = finish("--data-dir", folder / "data", "--dataset", "blobs", "--result-dir", folder / "results", *SMALL, "--train",
                              "--mirror-augment", "--total-kimg", "0.032")  # fmt: skip
        assert code == 0, err
        yield folder


def flags(place, *more):
    """Command-line words that evaluate on this place's dataset with the stand-ins."""
    return ["--data-dir", place / "data", "--dataset", "blobs", "--result-dir", place / "results", "--gpus", "cpu", "--eval",
            "--eval-images-num", COUNT, *([] if "--features-dir" in more else ["--features-dir", place / "features"]), *more]  # fmt: skip


def printed(out):
    """The result lines in a command's output: dict metric -> dict name -> number."""
    found = re.findall(r"^metric (\w+): (.*)  \(.*\)$", out, re.M)
    return {metric: {name: float(number) for name, number in re.findall(r"(\w+) (\S+)", line)} for metric, line in found}


def stored(run):
    """The last result of each metric in a run's metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["metric"]: line for line in lines}


def one_error(err):
    """The only error in a command's stderr."""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in err, err
    return errors[0]


def test_a_trained_run_prints_all_metrics(place):
    code, out, err = finish(*flags(place, "--metrics", ",".join(FIRST_NUMBERS)))
    assert code == 0, err
    numbers, results = printed(out), stored(place / "results" / "exp-000")
    for metric, first in FIRST_NUMBERS.items():
        assert np.isfinite(numbers[metric][first]), metric
        assert results[metric]["value"] == pytest.approx(numbers[metric][first], rel=1e-4)
        assert results[metric]["settings"]["snapshot"] == "network-snapshot-000000.pkl"
        assert (place / "results" / "exp-000" / f"metric-{metric}.txt").exists()
    said = {metric: results[metric]["settings"] for metric in FIRST_NUMBERS}
    assert [said[name]["space"] + said[name]["sampling"] for name in ("ppl", "ppl_zfull", "ppl_wend")] == ["wend", "zfull", "wend"]
    assert [said[name]["face_crop"] for name in ("ppl", "ppl_zfull", "ppl_wend")] == [False, True, True]
    code, again, err = finish(*flags(place, "--metrics", "fid,kid"))  # the reference statistics come from the cache
    assert code == 0, err
    assert printed(again) == {metric: numbers[metric] for metric in ("fid", "kid")}


@on_one_stack
def test_unlike_settings_are_recorded_and_not_compared(place):
    snapshot = place / "results" / "exp-000" / "network-snapshot-000000.pkl"
    for name, more in (("plain", []), ("clean", ["--eval-resize", "clean"]), ("older", ["--eval-protocol", "stylegan2"])):
        code, _, err = finish(*flags(place, "--expname", name, "--metrics", "fid", "--pretrained-pkl", snapshot, *more))
        assert code == 0, err
    assert stored(place / "results" / "clean-000")["fid"]["settings"]["resize"] == "clean"
    mirrored = [stored(place / "results" / f"{name}-000")["fid"]["settings"]["mirror"] for name in ("plain", "older")]
    assert mirrored == [False, True]  # the full protocol takes each real once; the older one mirrors as the run was trained
    unmirrored = flags(place, "--expname", "older", "--metrics", "fid", "--pretrained-pkl", snapshot, "--eval-protocol", "stylegan2")
    code, _, err = finish(*unmirrored, "--mirror-augment", "False")
    assert code == 0, err
    settings = stored(place / "results" / "older-000")["fid"]["settings"]
    assert settings["mirror"] is False and settings["snapshot"] == str(snapshot)  # a snapshot of another run is recorded by its path
    for other, message in (("clean", "resize 'tf1' against 'clean'"), ("older", "protocol 'full' against 'stylegan2'")):
        runs = [str(place / "results" / f"{name}-000") for name in ("plain", other)]
        done = subprocess.run([sys.executable, "-m", "metrics.compare", *runs], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and message in one_error(done.stderr)


def test_folder_of_the_datasets_own_pictures_after_a_kill(place):
    """FID(X, X) from the command line. The first evaluation is killed as soon as something is in the cache; the second one uses it."""
    words = flags(place, "--expname", "pictures", "--images-dir", place / "pictures", "--metrics", "fid,is,pr,kid,swd")
    cache = place / "cache" / "metrics"
    shutil.rmtree(str(cache), ignore_errors=True)
    process = start(*words)
    while not (cache.is_dir() and any(name.endswith(".npz") for name in os.listdir(str(cache)))):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("*.npz")}
    code, out, err = finish(*words)
    assert code == 0 and "unreadable" not in err, err
    assert {path: path.stat().st_mtime_ns for path in kept} == kept and kept
    numbers = printed(out)
    assert abs(numbers["fid"]["fid"]) < 1e-6
    assert numbers["pr"] == {"precision": 1, "recall": 1}
    assert numbers["is"]["is"] > 1 and numbers["swd"]["swd"] >= 0
    run = place / "results" / "pictures-000"
    assert stored(run)["fid"]["settings"]["images_dir"] == str(place / "pictures")
    assert stored(run)["fid"]["settings"]["fakes"] == COUNT
    assert (run / "log.txt").read_text().count("command: python run_network.py") == 2
    assert out.splitlines()[-1] == f"report {run / 'report.html'}" and (run / "report.html").is_file()
    assert not (place / "results" / "pictures-001").exists()


def _with_operation(folder, name):
    graph_def, _ = inception_standin()
    graph_def.node.add(name="leak", op="WriteFile", input=["Cast", "Cast"])
    (folder / name).write_bytes(graph_def.SerializeToString())


def _of_producer_21(folder, name):
    (folder / name).write_bytes(inception_standin(producer=21)[0].SerializeToString())


def _truncated(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])


def _junk(folder, name):
    (folder / name).write_bytes(b"<html>quota exceeded</html>")


def _archive_of_something_else(folder, name):
    (folder / name).rename(folder / "other.pb")
    with tarfile.open(str(folder / "inception-2015-12-05.tgz"), "w:gz") as archive:
        archive.add(str(folder / "other.pb"), "other.pb")


@pytest.mark.parametrize("metric, name, change, message", [
    ("fid", GRAPH, _with_operation, "forbidden operations WriteFile"),
    ("fid", GRAPH, _of_producer_21, "graph version (producer) 21, accepted below 9"),
    ("fid", GRAPH, _truncated, "truncated"),
    ("is", GRAPH, _junk, "not a TensorFlow graph"),
    ("kid", GRAPH, _archive_of_something_else, f"there is no {GRAPH} in it"),
    ("pr", VGG, _truncated, "not a Keras weights file, or truncated"),
    ("ppl", VGG, _junk, "not a Keras weights file"),
])  # fmt: skip
def test_unsuitable_weights_are_one_line_at_the_start(place, tmp_path, capsys, metric, name, change, message):
    write_features_dir(tmp_path)
    change(tmp_path, name)
    words = flags(place, "--metrics", metric, "--features-dir", tmp_path)
    assert run_main(run_network.main, [str(word) for word in words]) == 1
    out, err = capsys.readouterr()
    error = one_error(err)
    assert message in error and str(tmp_path) in error
    assert "snapshot " not in out  # before any network is built


@pytest.mark.parametrize("more, code, message", [
    (["--images-dir", "{pictures}", "--metrics", "fid,ppl"], 1, "metric ppl: it needs a network, not --images-dir"),
    (["--images-dir", "absent", "--metrics", "swd"], 1, "--images-dir absent: no such folder"),
    (["--images-dir", "{pictures}", "--metrics", "swd", "--train"], 2, "expected with --eval and without --train"),
    (["--metrics", "pr", "--eval-images-num", "3"], 1, "metric pr: too few images: 3 (--eval-images-num), at least 4 are required"),
    (["--metrics", "pr", "--train-images-num", "3"], 1, "metric pr: too few images: 3 in dataset blobs, at least 4 are required"),
    (["--metrics", "swd", "--ratio", "0.75"], 1, "width 32, ratio 0.75; the network makes 3 channels, width 32, ratio 1 (use --ratio 1 to"),
    (["--metrics", "ppl_wend", "--ratio", "0.75"], 1, "metric ppl_wend: images of 24 pixels (shorter side), at least 32 are required"),
    (["--metrics", "fid", "--eval-resize", "lanczos"], 2, "--eval-resize: got 'lanczos', expected one of tf1, clean"),
])  # fmt: skip
def test_bad_requests_are_one_line(place, more, code, message):
    more = [word.format(pictures=place / "pictures") for word in more]
    got, _, err = finish(*flags(place, *more))
    assert got == code, err
    assert message in one_error(err)


def test_no_number_at_all_is_an_error(place, tmp_path):
    for index in range(8):
        shutil.copy(str(place / "pictures" / f"{index:03d}.png"), str(tmp_path))
    (tmp_path / "007.png").write_bytes(b"no picture")
    code, out, err = finish(*flags(place, "--images-dir", tmp_path, "--metrics", "swd"))
    assert code == 1 and "metric swd failed" in err
    assert one_error(err) == "error: --metrics swd: none of them could be computed, see the warnings"


def test_metrics_disabled_at_the_start_do_not_count_as_failed():
    run_network._require_numbers([], {})
    with pytest.raises(UserError, match="--metrics fid,kid: none of them could be computed"):
        run_network._require_numbers(["fid", "kid"], {})


def test_vis_and_a_folder_together(place):
    """--images-dir replaces the network only in the metrics."""
    code, out, err = finish(*flags(place, "--images-dir", place / "pictures", "--metrics", "swd", "--vis-images", "--vis-num", "2"))
    assert code == 0, err
    assert out.count("metric swd") == 1 and str(place / "pictures") in out
    assert (place / "results" / "exp-000" / "visuals").is_dir()


def test_pictures_of_another_ratio_where_no_metric_minds(place):
    code, out, err = finish(*flags(place, "--metrics", "none", "--vis-images", "--vis-num", "2", "--ratio", "0.75"))
    assert code == 0, err


def test_the_command_line_accepts_what_is_registered():
    import metrics
    from training import presets

    assert set(presets.METRICS) == {*metrics.REGISTRY, "none"}
    (resize,) = [option for option in presets.OPTIONS if option.name == "eval_resize"]
    (protocol,) = [option for option in presets.OPTIONS if option.name == "eval_protocol"]
    assert resize.choices == metrics.metric_base.RESIZE_RULES and resize.default == metrics.Options().resize
    assert protocol.choices == tuple(metrics.PROTOCOLS) and protocol.default == metrics.Options().protocol
