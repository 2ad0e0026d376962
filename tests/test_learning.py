"""Does it learn: networks trained by the command line for some minutes on scenes of 32 pixels."""

import glob
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dnnlib import tflib
from tests.conftest import ROOT
from tests.test_architectures import unused_in_discriminator, unused_in_generator
from training.training_state import load_latest

KIMG = 8
MODELS = {
    "GANformer": ["--ganformer-default", "--components-num", "4", "--latent-size", "64"],
    "StyleGAN2": ["--baseline", "StyleGAN2", "--latent-size", "32"],
}
SIZES = [
    "--channel-base", "256", "--channel-max", "32", "--batch-size", "8", "--batch-gpu", "8", "--gamma", "0.3", "--g-lr", "0.003",
    "--d-lr", "0.003", "--ema-kimg", "0.3", "--tick-kimg", "2", "--metrics", "swd", "--eval-images-num", "256", "--seed", "0",
]  # fmt: skip


def command(*words):
    done = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("learning"))
    command("prepare_data.py", "--scenes", "--resolution", "32", "--max-images", "2000", "--labels", "none", "--data-dir", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(MODELS))
def test_learns(scenes, tmp_path, model):
    """The sliced Wasserstein distance falls below half of the untrained network's; every variable has moved along a gradient."""
    run = ["run_network.py", "--train", "--gpus", "cpu", "--dataset", "scenes", "--data-dir", scenes, "--result-dir", str(tmp_path)]
    for kimg in ("0", str(KIMG)):
        command(*run, "--total-kimg", kimg, *MODELS[model], *SIZES)
    folder = os.path.join(str(tmp_path), "exp-000")
    with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
        distances = [json.loads(line)["values"]["swd"] for line in file]
    print(f"{model}: swd {distances}")
    assert distances[-1] < 0.5 * distances[0]

    state = load_latest(folder)[0]
    with tflib.session_scope():
        snapshot = sorted(glob.glob(os.path.join(folder, "network-snapshot-*.pkl")))[-1]
        G, D, _ = tflib.load_snapshot(snapshot)
        for name, network, unused in (("G", G, unused_in_generator), ("D", D, unused_in_discriminator)):
            for variable in network.trainables:
                squares = state.arrays[f"{name}_optimizer/v/{variable}"]
                assert np.any(squares) == (unused(variable, network.config) is None), variable
