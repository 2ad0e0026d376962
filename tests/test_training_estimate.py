"""The estimate of --dry-run against sums by hand."""

import dataclasses
import re

import pytest

from dnnlib import tflib
from training import estimate
from training.config import LossConfig, TrainingConfig
from training.networks import DiscriminatorConfig, GeneratorConfig


def test_cost_of_a_discriminator_against_a_sum_by_hand():
    config = DiscriminatorConfig(resolution=8, channel_base=32, channel_max=8, architecture="orig", resample_kernel=None)
    c = 8
    layers = [
        (1 * 1 * 3 * c, 8 * 8),           # 8x8/FromRGB
        (3 * 3 * c * c, 8 * 8),           # Conv0
        (3 * 3 * c * c, 4 * 4),           # Conv1_down, after the filter
        (3 * 3 * (c + 1) * c, 4 * 4),     # 4x4/Conv, with the standard deviation
        (4 * 4 * c * c, 1),               # Dense0
        (c, 1),                           # Output
    ]  # fmt: skip
    cost = estimate.network_cost(config)
    biases = 5 * c + 1
    assert cost.parameters == sum(weights for weights, _ in layers) + biases
    products = sum(weights * places for weights, places in layers)
    assert products <= cost.multiply_adds <= 1.2 * products  # a filter may be written as a convolution
    assert cost.activation_bytes > 4 * (2 * 8 * 8 * c + 2 * 4 * 4 * c)


def test_measured_speed_is_possible():
    tflib.init_tf("cpu")
    speed = estimate.measured_speed("/cpu:0", size=16, channels=32, batch=2, repeats=2)
    assert 1e8 < speed < 2e12


def test_consistency_and_workers_count(monkeypatch):
    """With consistency D scores four batches in its loss instead of two; workers share the images."""
    monkeypatch.setattr(estimate, "measured_speed", lambda device: 1e9)
    size = {"resolution": 16, "channel_base": 64, "channel_max": 16}
    networks = GeneratorConfig(**size, z_dim=8, w_dim=8), DiscriminatorConfig(**size)
    G, D = (estimate.network_cost(config) for config in networks)
    config = TrainingConfig(loss=LossConfig())
    consistent = dataclasses.replace(config, loss=LossConfig(bcr_real=10.0, bcr_fake=10.0))
    for case, workers, passes in ((config, 1, 8), (config, 2, 8), (consistent, 1, 14)):
        text = estimate.lines(*networks, case, ["/cpu:0"], workers)[-1]
        seconds = 1e-6 * (4 * G.multiply_adds + passes * D.multiply_adds) / workers
        assert float(re.search(r"about ([\d.]+) s a kimg", text).group(1)) == pytest.approx(seconds, abs=0.05)
