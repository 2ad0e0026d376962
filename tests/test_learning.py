"""Does it learn: networks trained by the command line for a minute on pictures of 32 pixels."""

import glob
import json
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from dnnlib import tflib
from tests.conftest import ROOT
from tests.test_architectures import unused_in_discriminator, unused_in_generator
from training.training_state import load_latest

SIZES = [
    "--channel-base", "256", "--channel-max", "32", "--batch-size", "8", "--batch-gpu", "8", "--gamma", "0.3", "--g-lr", "0.003",
    "--d-lr", "0.003", "--ema-kimg", "0.3", "--metrics", "swd", "--eval-images-num", "256", "--seed", "0", "--summarize", "False",
]  # fmt: skip
FAST = ["--channel-max", "16", "--mapping-layersnum", "2", "--mapping-lrmul", "0.1", "--g-lr", "0.005", "--d-lr", "0.005"]
GANFORMER = ["--ganformer-default", "--components-num", "4", "--latent-size", "64"]


class Model(NamedTuple):
    """One training: its options, its dataset and its length in kimg."""

    options: list
    dataset: str = "scenes"
    kimg: float = 6


MODELS = {
    "GANformer": Model(GANFORMER, kimg=8),
    "GANformer, mixed precision": Model([*GANFORMER, "--precision", "mixed"], kimg=8),
    "GANformer, conditional": Model([*GANFORMER, *FAST], dataset="shapes"),
    "StyleGAN2": Model(["--baseline", "StyleGAN2", "--latent-size", "32"], kimg=8),
    "GAN": Model(["--baseline", "GAN", "--latent-size", "32", *FAST]),
    "kGAN": Model(["--baseline", "kGAN", "--components-num", "2", "--latent-size", "32", "--labels", "False", *FAST], dataset="shapes"),
    "SAGAN": Model(["--baseline", "SAGAN", "--g-img2img", "4", "--latent-size", "32", *FAST]),
}


def command(*words):
    done = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def write_shapes(folder, count=1000, size=32):
    """Folders of pictures: a bright disk, square or cross of some colour on a dark ground."""
    rng = np.random.RandomState(0)
    rows, columns = np.mgrid[:size, :size]
    for index in range(count):
        y, x = rng.uniform(0.35, 0.65, size=2) * size
        radius, (down, right) = rng.uniform(0.18, 0.28) * size, (np.abs(rows - y), np.abs(columns - x))
        kind = index % 3
        inside = [np.hypot(down, right) < radius, np.maximum(down, right) < radius * 0.85,
                  (np.minimum(down, right) < radius / 3) & (np.maximum(down, right) < radius * 1.2)][kind]  # fmt: skip
        picture = np.where(inside[..., np.newaxis], rng.randint(130, 256, size=3), rng.randint(90, size=3)).astype(np.uint8)
        path = os.path.join(folder, ["disk", "square", "cross"][kind])
        os.makedirs(path, exist_ok=True)
        Image.fromarray(picture).save(os.path.join(path, f"{index:04d}.png"))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Datasets of 32 pixels: scenes without labels, shapes with the labels of their folders."""
    folder = str(tmp_path_factory.mktemp("learning"))
    command("prepare_data.py", "--scenes", "--resolution", "32", "--max-images", "2000", "--labels", "none", "--data-dir", folder)
    write_shapes(os.path.join(folder, "pictures"))
    pictures = ["--images-dir", os.path.join(folder, "pictures"), "--format", "png", "--labels", "folders"]
    command("prepare_data.py", "--task", "shapes", *pictures, "--resolution", "32", "--data-dir", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_learns(data_dir, tmp_path, name):
    """The sliced Wasserstein distance falls below half of the untrained network's; every variable has moved along a gradient."""
    model = MODELS[name]
    if "mixed" in model.options and tflib.half_type() == tf.float16:
        pytest.skip("float16 convolutions are ten times as slow as float32 ones on this CPU")
    run = ["run_network.py", "--train", "--gpus", "cpu", "--dataset", model.dataset, "--data-dir", data_dir, "--result-dir", str(tmp_path)]
    for kimg in (0, model.kimg):
        command(*run, "--total-kimg", str(kimg), "--tick-kimg", str(model.kimg), *SIZES, *model.options)
    folder = os.path.join(str(tmp_path), "exp-000")
    with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
        distances = [json.loads(line)["values"]["swd"] for line in file]
    print(f"{name}: swd {distances}")
    assert distances[-1] < 0.5 * distances[0]

    state = load_latest(folder)[0]
    with tflib.session_scope():
        snapshot = sorted(glob.glob(os.path.join(folder, "network-snapshot-*.pkl")))[-1]
        G, D, _ = tflib.load_snapshot(snapshot)
        for name, network, unused in (("G", G, unused_in_generator), ("D", D, unused_in_discriminator)):
            for variable in network.trainables:
                squares = state.arrays[f"{name}_optimizer/v/{variable}"]
                assert np.any(squares) == (unused(variable, network.config) is None), variable
