"""The layer table of the default network at 256×256 against arithmetic by hand."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, on_one_stack

K, W, POSITIONS = 16, 32, 32  # components, size of one (512 / 16), width of positional encodings
CHANNELS = {1: 512, 2: 512, 3: 512, 4: 512, 5: 512, 6: 512, 7: 256, 8: 128}


def dense(inputs, outputs):
    return inputs * outputs + outputs


def modulated(inputs, outputs, kernel):
    """Weights, and the dense layer that computes the scales."""
    return kernel * kernel * inputs * outputs + dense(W, inputs)


def duplex_attention(width):
    queries_and_output = 2 * dense(width, width)
    keys_and_values = 2 * dense(W, width)
    positions = 2 * dense(POSITIONS, width)
    centroids = K * 2 * width + 2 * width  # toasgn_init, st_weights
    return queries_and_output + keys_and_values + positions + centroids


def generator_parameters():
    layer = dense(W, W)
    blocks = 4 * (6 * layer + 2 * layer) + layer  # attention (q, k, v, out, two positions), two dense layers; one more at the end
    world = 4 * 2 * layer + layer
    total = K * W + blocks + world + CHANNELS[2] * 16  # latent positions, mapping, the constant 4x4
    for r in range(2, 9):
        inputs = [CHANNELS[2]] if r == 2 else [CHANNELS[r - 1], CHANNELS[r]]
        for width in inputs:
            total += modulated(width, CHANNELS[r], 3) + 1 + CHANNELS[r]  # noise strength, bias
            total += duplex_attention(CHANNELS[r]) if r < 8 else 0  # g-end-res 8
        total += CHANNELS[r - 1] * CHANNELS[r] if r > 2 else 0  # Skip
    return total + modulated(CHANNELS[8], CHANNELS[8], 3) + modulated(CHANNELS[8], 3, 1) + 3  # extraLayer, ToRGB


def discriminator_parameters():
    total = dense(3, CHANNELS[8])
    for r in range(8, 2, -1):
        total += 9 * CHANNELS[r] ** 2 + CHANNELS[r] + 9 * CHANNELS[r] * CHANNELS[r - 1] + CHANNELS[r - 1]
        total += CHANNELS[r] * CHANNELS[r - 1]
    return total + 9 * (CHANNELS[2] + 1) * CHANNELS[2] + CHANNELS[2] + dense(16 * CHANNELS[2], CHANNELS[1]) + dense(CHANNELS[1], 1)


@pytest.mark.slow
@on_one_stack
def test_default_at_256(tmp_path):
    def run(*words):
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("prepare_data.py", "--scenes", "--resolution", "256", "--max-images", "2", "--labels", "none", "--data-dir", str(tmp_path))
    shown = run("run_network.py", "--ganformer-default", "--dataset", "scenes", "--data-dir", str(tmp_path), "--gpus", "cpu")
    totals = [int(count.replace(",", "")) for count in re.findall(r": total .* ([\d,]+)$", shown, flags=re.M)]
    assert totals == [generator_parameters(), discriminator_parameters()]
    assert os.listdir(str(tmp_path)) == ["scenes"]
