"""Benchmarks that no one runs every day still run: at their smallest, as a person starts them."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_feature_passes_of_the_metrics():
    command = [sys.executable, "-m", "benchmarks.metrics", "--part", "features", "--images", "4"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    for title in ("a dataset", "a folder of PNG files"):
        assert re.search(rf"features of {title} .*: \d+\.\d+ images/s of \d+\.\d+ of the bare network", done.stdout), done.stdout
