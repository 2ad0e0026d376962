"""Training that is killed and stopped, at random moments and in the middle of saving, ends with the same weights as undisturbed training.

Six times with TensorFlow 2 (for 1.15, test_cli_training has a shorter test); with LONG_TESTS=1, twenty times with each version, at other
moments.
"""

import os
import random
import re
import signal
import sys
import time

import numpy as np
import pytest

from tests.cli_helpers import SMALL, finish, start, write_raw_dataset
from tests.conftest import LONG, on_one_stack
from tests.test_cli_training import load

KILLS = 20 if LONG else 6
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGKILL]
STEPS = 126
FLAGS = [*SMALL, "--train", "--baseline", "GAN", "--tick-kimg", "0.016", "--total-kimg", str(STEPS * 0.016), "--summarize", "False"]


def wait_for_images(process, images):
    """Read status lines until this many images have been shown; returns whether the process is still running."""
    for line in process.stdout:
        found = re.match(r"tick \d+  kimg ([\d.]+)", line)
        if found and float(found.group(1)) * 1000 >= images:
            return True
    return False


def wait_for_saving(folder, process, seconds=20):
    """Wait until a file is being written."""
    end = time.time() + seconds
    while time.time() < end and process.poll() is None:
        if any(name.endswith(".partial") for name in os.listdir(folder)):
            return
        time.sleep(0.0005)


@pytest.mark.slow
@on_one_stack
def test_faults(tmp_path):
    write_raw_dataset(tmp_path)
    flags = [*FLAGS, "--data-dir", tmp_path, "--dataset", "blobs", "--result-dir", tmp_path / "results"]
    code, out, err = finish(*flags, "--expname", "whole")
    assert code == 0 and len(re.findall(r"^tick ", out, re.M)) == STEPS, err

    rng, folder = random.Random(sys.version_info[1]), str(tmp_path / "results" / "broken-000")
    endings, said = [], ""
    for fault in range(KILLS):
        process = start(*flags, "--expname", "broken")
        assert wait_for_images(process, 16 * STEPS * (fault + 0.5) / (KILLS + 1)), f"ended before fault {fault}"
        if fault % 3 == 0:
            wait_for_saving(folder, process)
        else:
            time.sleep(rng.uniform(0, 0.3))
        process.send_signal(SIGNALS[fault % 6])
        rest, _ = process.communicate()
        endings.append(process.returncode)
        said += rest
    assert "Traceback" not in said, said
    assert all(f"{name}: finishing this step" in said for name in ("SIGTERM", "SIGINT")) and "\nstopped at kimg " in said, said
    assert endings.count(-signal.SIGKILL) >= KILLS // 3 and endings.count(0) >= KILLS // 6, endings

    code, out, err = finish(*flags, "--expname", "broken")
    assert code == 0 and out.splitlines()[-1] == f"training complete: kimg {STEPS * 0.016:.3f}", err
    with open(os.path.join(folder, "log.txt"), encoding="utf-8") as file:
        assert file.read().count("command: python run_network.py") == KILLS + 1
    newest = sorted(name for name in os.listdir(folder) if name.startswith("training-state"))[-1]
    progress, arrays = load(os.path.join(folder, newest))
    expected_progress, expected = load(str(tmp_path / "results" / "whole-000" / newest))
    assert progress == expected_progress and progress["step"] == STEPS
    assert not [name for name in expected if not np.array_equal(arrays[name], expected[name])]
    assert not [name for name in os.listdir(folder) if name.endswith(".partial")]
