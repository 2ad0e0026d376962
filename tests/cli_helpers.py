"""Running the command lines as users do: in separate processes, on a small dataset in the older raw form."""

import os
import subprocess
import sys

import numpy as np

from tests.dataset_helpers import write_old_dataset

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SMALL = [
    "--gpus", "cpu", "--channel-base", "64", "--channel-max", "16", "--latent-size", "32", "--mapping-layersnum", "2",
    "--batch-size", "16", "--batch-gpu", "8", "--metrics", "none",
]  # fmt: skip


def write_raw_dataset(folder, name="blobs", resolution=16, count=96):
    """Coloured blobs on gray, stored as older tools did: raw tfrecords without a manifest. Returns the dataset's folder."""
    rng = np.random.RandomState(0)
    path = os.path.join(str(folder), name)
    rows, columns = np.mgrid[:resolution, :resolution]
    pictures = []
    for _ in range(count):
        y, x, size = rng.uniform(0.2, 0.8, size=3) * resolution * [1, 1, 0.4]
        inside = np.hypot(rows - y, columns - x) < size
        pictures.append(np.where(inside, rng.randint(256, size=[3, 1, 1]), 128).astype(np.uint8))
    write_old_dataset(path, name, np.stack(pictures))
    return path


def command(*arguments, script="run_network.py"):
    """The words of a command line."""
    return [sys.executable, os.path.join(ROOT, script), *(str(argument) for argument in arguments)]


def start(*arguments, script="run_network.py"):
    """Start a command line; stdout is a text pipe that also receives stderr."""
    return subprocess.Popen(command(*arguments, script=script), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*arguments, script="run_network.py", timeout=900):
    """Run a command line to its end.

    Returns:
        (exit code, stdout, stderr).
    """
    done = subprocess.run(command(*arguments, script=script), capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


def wait_for(process, text):
    """Read a started process's output up to a line that begins with `text`; returns the lines."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(text):
            return lines
    raise AssertionError(f"{text!r} did not come:\n" + "".join(lines))
