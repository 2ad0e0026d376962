"""Which GPUs a process takes, by --gpus and CUDA_VISIBLE_DEVICES, and how exactly they multiply."""

import os

import pytest
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from dnnlib.tflib import setup
from training import launch
from training.command_line import Options


@pytest.mark.parametrize("shown, gpus, expected", [
    (None, "0,2", "0,2"), (None, "cpu", ""), ("3", "0", "3"), ("5,GPU-7f,1", "1,2", "GPU-7f,1"), ("3", "cpu", ""), ("", "0", ""),
])  # fmt: skip
def test_gpus_count_among_the_visible_ones(monkeypatch, shown, gpus, expected):
    monkeypatch.setattr(setup, "_shown_gpus", shown)
    assert setup._cuda_devices(gpus) == expected


def test_a_hidden_gpu(monkeypatch):
    monkeypatch.setattr(setup, "_shown_gpus", "3,4")
    with pytest.raises(UserError, match="--gpus 0,2: CUDA_VISIBLE_DEVICES=3,4 shows 2, accepted: 0 to 1"):
        setup._cuda_devices("0,2")


def exact_products():
    """Whether TensorFlow keeps GPUs from TF32."""
    if tf.__version__.startswith("1."):
        return os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    return not tf.config.experimental.tensor_float_32_execution_enabled()


def test_float32_is_exact_unless_tf32_is_asked_for():
    assert exact_products()
    try:
        launch.init_devices(Options(gpus="cpu", precision="tf32"))
        assert not exact_products() and tflib.tf32_allowed()
        launch.init_devices(Options(gpus="cpu"))
        assert exact_products() and not tflib.tf32_allowed()
    finally:
        tflib.allow_tf32(False)
