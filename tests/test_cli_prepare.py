"""run_network.py --prepare: the dataset first, then whatever else was requested; what the command lines have in common."""

import json
import os
import re

import pytest

import run_network
from dataset_tool import cli
from dnnlib import UsageError
from tests.cli_helpers import SMALL, finish
from tests.conftest import on_one_stack
from training import command_line, presets


@on_one_stack
def test_prepare_makes_the_dataset_once(tmp_path):
    command = ["--prepare", "--dataset", "scenes", "--data-dir", str(tmp_path), "--train-images-num", "6", "--resolution", "16",
               "--dry-run", *SMALL]  # fmt: skip
    code, shown, errors = finish(*command)
    assert code == 0, shown + errors
    manifest = os.path.join(str(tmp_path), "scenes", "dataset.json")
    with open(manifest, encoding="utf-8") as file:
        stored = json.load(file)
    assert (stored["count"], stored["resolution"]) == (6, 16)
    before = os.stat(manifest).st_mtime_ns
    assert finish(*command)[0] == 0
    assert os.stat(manifest).st_mtime_ns == before


def test_the_help_names_what_prepare_takes(monkeypatch):
    """Each option that is passed on to the preparation, except --dataset, and no other."""
    prepared = []
    monkeypatch.setattr(cli, "prepare", prepared.append)
    given = {"data_dir": "there", "ratio": 0.5, "resolution": 32, "train_images_num": 7, "images_dir": "photos"}
    run_network._prepare(command_line.Options(dataset="mine", **given))
    changed = {name: value for name, value in vars(prepared[0]).items() if value != getattr(cli.Options(), name)}
    assert changed == {"task": "mine", "data_dir": "there", "ratio": 0.5, "resolution": 32, "max_images": 7, "images_dir": "photos"}
    (row,) = (option for option in presets.OPTIONS if option.name == "prepare")
    flags = {option.flag for option in presets.OPTIONS if option.name in given}
    assert set(re.findall(r"--[a-z-]+", row.help)) == flags


def test_prepare_without_a_source_is_one_line(tmp_path):
    code, _, errors = finish("--prepare", "--dataset", "mine", "--data-dir", str(tmp_path))
    assert code == 2
    assert "--images-dir" in errors and len(errors.splitlines()) == 1


def test_workers_do_not_prepare_the_same_dataset(tmp_path, monkeypatch):
    def main(hosts):
        cluster = {"cluster": {"worker": [f"{host}:1" for host in hosts]}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
        run_network.main(["--train", "--prepare", "--dataset", "mine", "--data-dir", str(tmp_path)])

    with pytest.raises(UsageError, match=r"^--prepare: dataset mine does not exist yet, and several workers \(TF_CONFIG\) cannot"):
        main("ab")
    with pytest.raises(UsageError, match="--images-dir"):
        main("a")


@pytest.mark.parametrize("script, arguments, otherwise", [
    ("run_network.py", ["--dataset", "absent"], "--dataset absent: there is no folder"),
    ("generate.py", ["--model", "absent.pkl"], "--model absent.pkl: there is no such file"),
    ("prepare_data.py", ["--task", "own", "--images-dir", "absent"], "--images-dir absent: no such file or folder"),
])  # fmt: skip
def test_a_ratio_may_be_a_fraction(script, arguments, otherwise):
    for ratio, expected, message in (
        ("188/256", 1, otherwise),
        ("256/188", 2, "--ratio: got 1.36170212765957"),
        ("1/0", 2, "--ratio: got '1/0', expected a number or a fraction"),
    ):
        code, _, errors = finish(*arguments, "--ratio", ratio, script=script)
        assert code == expected and message in errors and len(errors.splitlines()) == 1, errors


def test_a_fraction_is_the_ratio_stored(tmp_path):
    command = ["--scenes", "--max-images", "2", "--resolution", "256", "--ratio", "188/256", "--data-dir", str(tmp_path)]
    code, _, errors = finish(*command, script="prepare_data.py")
    assert code == 0, errors
    with open(os.path.join(str(tmp_path), "scenes", "dataset.json"), encoding="utf-8") as file:
        assert json.load(file)["ratio"] == 0.734375
