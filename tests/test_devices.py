"""Which GPUs a process takes, by --gpus and CUDA_VISIBLE_DEVICES."""

import pytest

from dnnlib import UserError
from dnnlib.tflib import setup


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
