"""Fixtures and helpers shared by several test files."""

import os
import signal
import subprocess
import sys

import pytest

from dnnlib.util import usable_cores

# Tests that run side by side share the cores: this is twice as fast as giving each test one thread per core.
side_by_side = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, usable_cores() // side_by_side)))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and all children would too
# For children that compute on the GPU: tflib.init_tf("cpu") hides it from this process and from all that inherit its variables.
STARTED_WITH = dict(os.environ)

LONG = os.environ.get("LONG_TESTS") == "1"  # also run tests that take too long for every run
PYTHON37 = sys.version_info < (3, 8)  # and with it TensorFlow 1.15

# Modules whose tests take minutes. They start first, so that no core is left waiting for a long last test on another.
LONG_MODULES = ["test_faults", "test_workers", "test_learning", "test_gallery", "test_readme", "test_cli_training"]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GOLDEN_DIR = os.environ.get("GOLDEN_DIR", os.path.join(os.path.dirname(ROOT), "shared", "golden"))


def pytest_collection_modifyitems(items):
    """LONG_MODULES in their order, then the rest in the order found."""

    def place(item):
        name = item.module.__name__.split(".")[-1]
        return LONG_MODULES.index(name) if name in LONG_MODULES else len(LONG_MODULES)

    items.sort(key=place)


def half_of(cases):
    """Every second case: TensorFlow 1.15 (Python 3.7) tests one half, TensorFlow 2 the other. With LONG_TESTS=1 both test all of them."""
    return cases if LONG else cases[PYTHON37::2]


def on_one_stack(test):
    """Mark a test that takes minutes and does not depend on the TensorFlow version: version 2 runs it; with LONG_TESTS=1 both do."""
    return pytest.mark.skipif(PYTHON37 and not LONG, reason="takes minutes: TensorFlow 2 runs it")(test)


def on_the_other_stack(test):
    """As on_one_stack, but version 1.15 runs it: version 2 has a similar test, or enough of them."""
    return pytest.mark.skipif(not PYTHON37 and not LONG, reason="takes minutes: TensorFlow 1.15 runs it")(test)


def golden_path(*parts):
    """Path of a golden file or folder. If it is missing, the test is skipped, or fails if GOLDEN_REQUIRED is set (CI)."""
    path = os.path.join(GOLDEN_DIR, *parts)
    if not os.path.exists(path):
        if os.environ.get("GOLDEN_REQUIRED"):
            pytest.fail(f"golden file {path} is missing")
        pytest.skip(f"golden file {path} is missing")
    return path


def first_gpu():
    """Compute capability (90 for 9.0) of the first GPU visible when the process started, or None.

    A child asks the driver: asking here would fix which GPUs this process sees, whatever tflib.init_tf says later.
    """
    ask = "from dnnlib.gpus import visible_gpus; print(*(gpu.capability for gpu in visible_gpus()))"
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, env=STARTED_WITH, stdout=subprocess.PIPE, check=True, text=True)
    return int(done.stdout.split()[0]) if done.stdout.strip() else None


@pytest.fixture(scope="session")
def gpu():
    """Compute capability of the first GPU; skips the test if there is none."""
    capability = first_gpu()
    if capability is None:
        pytest.skip("needs a CUDA device")
    return capability


@pytest.fixture
def graph():
    """A fresh TensorFlow graph and session for one test."""
    from dnnlib import tflib

    with tflib.session_scope() as session:
        yield session


@pytest.fixture(scope="session")
def picture_models(tmp_path_factory):
    """Small snapshots of several architectures with random weights: dict name -> path."""
    from tests.picture_models import write_models

    return write_models(str(tmp_path_factory.mktemp("models")))
