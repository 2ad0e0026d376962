"""The estimate of --dry-run against sums by hand."""

import dataclasses
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from tests import memory_run
from tests.conftest import ROOT, on_one_stack
from training import estimate
from training.config import LossConfig, ScheduleConfig, TrainingConfig
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


@pytest.mark.parametrize("gradient", ["", "BackpropInput", "BackpropFilter"])
@pytest.mark.parametrize("kind, convolve", [("Conv2D", tf.nn.conv2d), ("DepthwiseConv2dNative", tf.nn.depthwise_conv2d)])
def test_multiply_adds_of_a_convolution_and_its_gradients(kind, convolve, gradient):
    """Stride 2, 2 images of 4 x 4 pixels: 6 channels from 3 x 3 pixels of 4 channels each, or 4 x 6 channels from those of one channel."""
    with tf.Graph().as_default() as graph:
        x, w = tf.zeros([2, 8, 8, 4]), tf.zeros([3, 3, 4, 6])
        tf.gradients(convolve(x, w, [1, 2, 2, 1], "SAME"), [x, w])
        (op,) = [op for op in graph.get_operations() if op.type == kind + gradient]
        assert estimate.multiply_adds(op) == 2 * 4 * 4 * 4 * 6 * 3 * 3


@pytest.mark.parametrize("batch", [[], [2]])
def test_multiply_adds_of_a_matrix_product_and_its_gradients(batch):
    with tf.Graph().as_default() as graph:
        x, w = tf.zeros([*batch, 3, 5]), tf.zeros([*batch, 5, 7])
        tf.gradients(tf.matmul(x, w), [x, w])
        found = [estimate.multiply_adds(op) for op in graph.get_operations() if "MatMul" in op.type]
        assert found == [(batch or [1])[0] * 3 * 5 * 7] * 3


def test_peak_of_a_chain_of_exponentials():
    """Alone, two of the 4 kB results exist at once; for the gradient (of y = exp(x): y dy) all five remain, plus one dy and the next."""
    with tf.Graph().as_default():
        x = y = tf.placeholder(tf.float32, [1000])
        for _ in range(5):
            y = tf.exp(tf.identity(tf.reshape(y, [10, 100] if y.shape.ndims == 1 else [1000])))  # only exp takes memory
        assert 8000 <= estimate.peak_bytes([y]) <= 8100
        assert 7 * 4000 <= estimate.peak_bytes(tf.gradients(y, x)) <= 9 * 4000


@pytest.mark.slow
@on_one_stack
def test_memory_grows_with_the_batch_as_a_training_does():
    few, many = 8, 40
    measured = []
    for images in (few, many):
        command = [sys.executable, "-m", "tests.memory_run", str(images)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
        measured.append(float(done.stdout.split()[-1]) * 2**30)
    tflib.init_tf("cpu")
    needed = [estimate.memory(*memory_run.NETWORKS, memory_run.training_of(images), "/cpu:0") for images in (few, many)]
    with tflib.session_scope():
        G, D = (tflib.Network("net", config).parameter_count()[0] for config in memory_run.NETWORKS)
    assert 4 * (4 * G + 3 * D) <= needed[0].variables <= 4.4 * (4 * G + 3 * D)  # with the moving average and Adam's two values for each
    assert needed[0].variables == needed[1].variables
    growth = needed[1].tensors - needed[0].tensors
    print(f"MiB an image: estimated {growth / (many - few) / 2**20:.1f}, measured {(measured[1] - measured[0]) / (many - few) / 2**20:.1f}")
    assert 0.7 < growth / (measured[1] - measured[0]) < 3


def test_memory_is_that_of_the_costliest_loss_and_of_the_devices_own_share(monkeypatch):
    shares = []

    def standin(G, D, Gs, config, labels, devices):
        shares.append((config.schedule.batch_size, devices))
        return SimpleNamespace(fetches={"generator": 100, "discriminator": 300, "r1": 200})

    monkeypatch.setattr(estimate, "TrainingStep", standin)
    monkeypatch.setattr(estimate, "peak_bytes", lambda fetches: fetches)
    config = TrainingConfig(schedule=ScheduleConfig(batch_size=32, batch_gpu=4))
    assert estimate.memory(*NETWORKS, config, "/gpu:0", parts=2).tensors == int(1.4 * 300) and shares == [(16, ["/gpu:0"])]


def test_measured_speed_is_possible(monkeypatch):
    """Three times, 128 channels of 8 x 64 x 64 pixels from 3 x 3 pixels of 128 channels, and both gradients."""
    tflib.init_tf("cpu")
    times, clock = [], time.time
    monkeypatch.setattr(estimate, "time", SimpleNamespace(time=lambda: times.append(clock()) or times[-1]))
    speed = estimate.measured_speed("/cpu:0")
    assert 1e8 < speed < 2e12
    assert speed * (times[1] - times[0]) == pytest.approx(3 * 3 * (128 * 8 * 64 * 64) * (3 * 3 * 128))


SIZE = {"resolution": 16, "channel_base": 64, "channel_max": 16}
NETWORKS = GeneratorConfig(**SIZE, z_dim=8, w_dim=8), DiscriminatorConfig(**SIZE)
PLAIN = LossConfig(d_reg="non")


def seconds_a_kimg(config, workers=1):
    text = estimate.lines(*NETWORKS, config, ["/cpu:0"], workers)[-1]
    return float(re.search(r"about ([\d.]+) s per kimg", text).group(1))


@pytest.mark.parametrize("loss, workers, g_passes, d_passes", [
    (PLAIN, 1, 4, 8),
    (PLAIN, 2, 4, 8),
    (dataclasses.replace(PLAIN, bcr_real=10.0), 1, 4, 11),
    (dataclasses.replace(PLAIN, bcr_fake=10.0), 1, 4, 11),
    (LossConfig(d_reg="r1", d_reg_interval=2), 1, 4, 11),
    (dataclasses.replace(PLAIN, pathreg=True, g_reg_interval=1), 1, 7, 8),
])  # fmt: skip
def test_what_costs_time(monkeypatch, loss, workers, g_passes, d_passes):
    """Consistency: D scores four batches in its loss instead of two. A regularizer: six passes; path length's use half a batch."""
    monkeypatch.setattr(estimate, "memory", lambda *arguments: estimate.Memory(0, 0))
    monkeypatch.setattr(estimate, "measured_speed", lambda device: 1e8)
    G, D = (estimate.network_cost(config) for config in NETWORKS)
    expected = 1e-5 * (g_passes * G.multiply_adds + d_passes * D.multiply_adds) / workers
    assert seconds_a_kimg(TrainingConfig(loss=loss), workers) == pytest.approx(expected, abs=0.05)


def test_the_estimate_in_words(monkeypatch):
    parts = []
    monkeypatch.setattr(estimate, "memory", lambda *arguments: parts.append(arguments[-1]) or estimate.Memory(3 << 30, 1 << 29))
    monkeypatch.setattr(estimate, "measured_speed", lambda device: 1e8)
    cost = estimate.NetworkCost(1234567, 25 * 10**6, 0)
    monkeypatch.setattr(estimate, "network_cost", lambda config, half: cost)
    config = TrainingConfig(loss=PLAIN, schedule=ScheduleConfig(batch_gpu=16, total_kimg=50))
    text = "\n".join(estimate.lines(*NETWORKS, config, ["/gpu:0", "/gpu:1"], 3))
    assert parts == [6]
    for part in ("G 1,234,567  D 1,234,567", "G 0.025  D 0.025 billion", "about 3.5 GB on each device", "3.0 GB weights and optimizers",
                 "0.5 GB activations of 16 images", "about 500.0 s per kimg at best, 6h 56m for 50 kimg"):  # fmt: skip
        assert part in text


def test_mixed_precision_takes_less_time(monkeypatch):
    """All scales of a small network except 4x4 are computed in the 16-bit type, which is twice as fast here."""
    monkeypatch.setattr(estimate, "memory", lambda *arguments: estimate.Memory(0, 0))
    monkeypatch.setattr(estimate, "measured_speed", lambda device, dtype=tf.float32: 1e8 if dtype == tf.float32 else 2e8)
    full, half = (estimate.network_cost(NETWORKS[1], half) for half in (None, tflib.half_type()))
    assert full.half_multiply_adds == 0
    assert full.multiply_adds == half.multiply_adds
    assert 0.5 * full.multiply_adds < half.half_multiply_adds < full.multiply_adds
    times = [seconds_a_kimg(TrainingConfig(precision=precision)) for precision in ("fp32", "mixed")]
    assert 0.5 * times[0] < times[1] < 0.8 * times[0]
