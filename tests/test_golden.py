"""Networks and snapshots against numbers from the public release."""

import json
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
    assert error < 5e-5  # what float32 achieves; the tolerance allows for other kernels


@pytest.mark.parametrize("name", ["v1_stylegan2", "v2_ganformer_duplex"])
def test_snapshot(name):
    error, tolerance = golden.check_snapshot(golden_path("snapshots", f"{name}.npz"))
    assert error <= tolerance
    assert error < 5e-5


def test_tool_says_which_file_is_off(tmp_path, capsys):
    """The tool itself: a changed output is reported and sets the exit code to 1; an unchanged file beside it is ok."""
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


@pytest.mark.parametrize("extra, note", [({"dlatent_size": 16}, ""), ({"something": 1}, "something = 1"), ({"local_attention": 4}, "= 4")])
def test_arguments_that_nobody_knows_are_printed_and_the_variables_decide(tmp_path, capsys, extra, note):
    with np.load(golden_path("networks", "d_v1_transformer_full.npz")) as file:
        data = dict(file)
    data["config"] = np.array(json.dumps(dict(json.loads(str(data["config"])), **extra)))
    path = str(tmp_path / "more.npz")
    np.savez(path, **data)
    line, good = golden.check_file(path)
    assert good, line
    printed = capsys.readouterr().out
    assert printed.count("more.npz") == bool(note) and note in printed


def test_any_number_of_images(tmp_path):
    """Each of the four images three times in a row: each group, n mod 3, then has the file's own four, and the scores do not change."""
    with np.load(golden_path("networks", "d_channels.npz")) as file:
        data = dict(file)
    data.update({name: np.repeat(data[name], 3, axis=0) for name in ("images", "labels", "scores")})
    path = str(tmp_path / "twelve.npz")
    np.savez(path, **data)
    line, good = golden.check_file(path)
    assert good, line
    data.update({name: data[name][:5] for name in ("images", "labels", "scores")})
    np.savez(path, **data)
    line, good = golden.check_file(path)
    assert not good and "got 5 images" in line


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
