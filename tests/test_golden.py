"""Networks and snapshots against the numbers of the public release."""

import os
import shutil

import numpy as np
import pytest

from tests import golden
from tests.conftest import GOLDEN_DIR, golden_path

FOLDER = os.path.join(GOLDEN_DIR, "networks")
NETWORKS = sorted(os.listdir(FOLDER)) if os.path.isdir(FOLDER) else ["(none)"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    error, tolerance = golden.check_network(golden_path("networks", name))
    assert error <= tolerance
    assert error < 5e-5  # what float32 reaches; the tolerance allows for other kernels


@pytest.mark.parametrize("name", ["v1_stylegan2", "v2_ganformer_duplex"])
def test_snapshot(name):
    error, tolerance = golden.check_snapshot(golden_path("snapshots", f"{name}.npz"))
    assert error <= tolerance
    assert error < 5e-5


def test_tool_says_which_file_is_off(tmp_path, capsys):
    """The tool itself: a changed output is reported and makes the exit code 1, an unchanged file beside it is ok."""
    source = golden_path("networks", "d_channels.npz")
    shutil.copy(source, str(tmp_path / "good.npz"))
    with np.load(source) as file:
        data = dict(file)
    data["scores"] = data["scores"] + 1e-3 * np.abs(data["scores"]).max()
    np.savez(str(tmp_path / "off.npz"), **data)
    assert golden.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok") and "good.npz" in lines[0]
    assert lines[1].startswith("FAIL") and "off.npz" in lines[1]


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_variables_must_match_by_name_and_shape(tmp_path, change):
    with np.load(golden_path("networks", "d_channels.npz")) as file:
        data = dict(file)
    if change == "missing":
        del data["var:Output/bias"]
    elif change == "extra":
        data["var:Output/other"] = np.zeros(3, np.float32)
    else:
        data["var:Output/bias"] = np.zeros(2, np.float32)
    path = str(tmp_path / "changed.npz")
    np.savez(path, **data)
    line, good = golden.check_file(path)
    assert not good
    assert "Output/" in line
