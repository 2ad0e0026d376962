"""Training on a dataset written by an independent writer of the older format, labels included."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT, on_one_stack
from tests.dataset_helpers import noise, write_old_dataset


@pytest.mark.slow
@on_one_stack
def test_an_older_labelled_dataset_trains(tmp_path):
    write_old_dataset(tmp_path / "data" / "old", "old", noise(40).transpose(0, 3, 1, 2), np.eye(3)[np.arange(40) % 3], shards=2)
    command = [sys.executable, os.path.join(ROOT, "run_network.py"), "--train", "--gpus", "cpu", "--metrics", "none", "--dataset", "old"]
    command += ["--data-dir", str(tmp_path / "data"), "--result-dir", str(tmp_path / "results"), "--total-kimg", "0.064"]
    command += ["--batch-size", "8", "--batch-gpu", "8", "--latent-size", "16", "--channel-base", "32", "--channel-max", "8",
                "--mapping-layersnum", "2"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "dataset old: 40 images of 16 pixels, labels [40, 3]" in done.stdout
    assert any(name.endswith(".pkl") for name in os.listdir(str(tmp_path / "results" / "exp-000")))
