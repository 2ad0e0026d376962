"""Which GPUs a process uses, given --gpus and CUDA_VISIBLE_DEVICES, and how exact their products are."""

import os

import pytest
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from dnnlib.tflib import setup
from training import launch
from training.command_line import Options
from training.devices import open_devices


@pytest.mark.parametrize("shown, gpus, expected", [
    (None, "0,2", "0,2"), (None, "cpu", ""), ("3", "0", "3"), ("5,GPU-7f,1", "1,2", "GPU-7f,1"), ("3", "cpu", ""), ("", "0", ""),
])  # fmt: skip
def test_gpus_count_among_the_visible_ones(monkeypatch, shown, gpus, expected):
    monkeypatch.setattr(setup, "_shown_gpus", shown)
    assert setup._cuda_devices(gpus) == expected


def test_a_hidden_gpu(monkeypatch):
    monkeypatch.setattr(setup, "_shown_gpus", "3,4")
    with pytest.raises(UserError, match="--gpus 0,2: CUDA_VISIBLE_DEVICES=3,4 has 2, accepted: 0 to 1"):
        setup._cuda_devices("0,2")


@pytest.mark.parametrize("gpus, there, seen, message", [
    ("4", 4, 0, "this machine has 4 GPUs, accepted: 0 to 3"), ("1", 1, 0, "this machine has 1 GPU, accepted: 0 to 0"),
    ("0,7,1", 4, 1, "this machine has 4 GPUs, accepted: 0 to 3"), ("0,1", 4, 1, "2 GPUs requested, TensorFlow sees 1"),
    ("3", 4, 0, None), ("4", 0, 0, None), ("0,1", 2, 2, None), ("cpu", 4, 0, None),
])  # fmt: skip
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(monkeypatch, gpus, there, seen, message):
    """Unless there is none at all, or TensorFlow cannot use any."""
    names = [f"/gpu:{number}" for number in range(seen)] or ["/cpu:0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that the old value is restored at the end
    monkeypatch.setattr(setup, "_shown_gpus", None)
    monkeypatch.setattr(setup, "machine_gpus", lambda: there)
    monkeypatch.setattr(setup, "devices", lambda: names)
    if message is None:
        assert tflib.init_tf(gpus) == names
        return
    with pytest.raises(UserError) as raised:
        tflib.init_tf(gpus)
    assert str(raised.value) == f"--gpus {gpus}: {message}"


@pytest.mark.parametrize("shown, said", [(None, "no GPU: using CPU"), ("", "no GPU (CUDA_VISIBLE_DEVICES is empty): using CPU")])
def test_a_variable_that_hides_all_gpus_is_named(monkeypatch, capsys, shown, said):
    """Processes started from one that has chosen the CPU inherit it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(setup, "_shown_gpus", shown)
    monkeypatch.setattr(setup, "machine_gpus", lambda: 0)
    monkeypatch.setattr(setup, "devices", lambda: ["/cpu:0"])
    assert open_devices("0", "ref") == ["/cpu:0"]
    assert capsys.readouterr().out.splitlines()[0] == said


def exact_products():
    """Whether TensorFlow keeps GPUs from using TF32."""
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
