"""run_network.py --prepare: the dataset first, then whatever else is asked for."""

import json
import os

from tests.cli_helpers import finish


def test_prepare_makes_the_dataset_once(tmp_path):
    command = ["--prepare", "--dataset", "scenes", "--data-dir", str(tmp_path), "--train-images-num", "6", "--resolution", "16",
               "--dry-run", "--gpus", "cpu"]  # fmt: skip
    code, shown, errors = finish(*command)
    assert code == 0, shown + errors
    manifest = os.path.join(str(tmp_path), "scenes", "dataset.json")
    with open(manifest, encoding="utf-8") as file:
        stored = json.load(file)
    assert (stored["count"], stored["resolution"]) == (6, 16)
    before = os.stat(manifest).st_mtime_ns
    assert finish(*command)[0] == 0
    assert os.stat(manifest).st_mtime_ns == before


def test_prepare_without_a_source_is_one_line(tmp_path):
    code, _, errors = finish("--prepare", "--dataset", "mine", "--data-dir", str(tmp_path))
    assert code == 2
    assert "--images-dir" in errors and len(errors.splitlines()) == 1
