"""examples.gallery: the page of all visualizations for a tiny run."""

import json
import os
import re
import subprocess
import sys

import PIL.Image
import pytest

from dnnlib import UserError, run_main
from examples import gallery, webdriver
from tests.cli_helpers import ROOT, SMALL, finish, write_raw_dataset
from tests.conftest import on_one_stack
from training import run_record


@on_one_stack
@pytest.mark.slow
def test_every_entry_has_its_picture(tmp_path):
    write_raw_dataset(tmp_path, "blobs")
    results = ["--result-dir", tmp_path / "results", "--expname", "tiny", "--dataset", "blobs", "--data-dir", tmp_path]
    code, _, err = finish("--train", "--ganformer-default", "--components-num", 2, "--total-kimg", 0.016, *results, *SMALL)
    assert code == 0, err
    page = tmp_path / "page"
    command = ["-m", "examples.gallery", "--run", tmp_path / "results" / "tiny-000", "--output", page, "--project-steps", "2"]
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    text = (page / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert set(pictures) == set(os.listdir(str(page))) - {"README.md"}
    assert len(pictures) == 14 + (0 if None in webdriver.programs() else 3)
    for command in re.findall(r"^python (.*)$", text, flags=re.M):
        assert f"$ python {command}\n" in done.stdout  # the commands on the page were run
    sizes = {}
    for name in pictures:
        with PIL.Image.open(str(page / name)) as picture:
            sizes[name] = picture.size
    assert sizes["samples.png"] == (4 * (8 * 16 + 7 * 4), 4 * (2 * 16 + 4))  # two rows of eight pictures, enlarged four times
    assert sizes["interpolations.png"][0] == 4 * 10 * 16 and sizes["video.gif"] == (64, 64)


def test_the_run_must_be_the_one_that_the_visualizations_show(tmp_path):
    """The latest trained one of its name: a later folder with results alone is not in the way."""
    first, second = tmp_path / "tiny-000", tmp_path / "tiny-001"
    record = {**dict.fromkeys(run_record.SECTIONS), "options": {"dataset": "blobs", "data_dir": "data"},
              "dataset": {"name": "blobs", "count": 8, "resolution": 16, "ratio": 0.75}}  # fmt: skip
    for folder in (first, second):
        folder.mkdir()
    (first / "network-snapshot-000001.pkl").touch()
    (first / "config.json").write_text(json.dumps(record))
    assert gallery.Run(str(first)).report[1:] == ("--report", "--expname", "tiny", "--result-dir", str(tmp_path))
    (second / "network-snapshot-000001.pkl").touch()
    with pytest.raises(UserError, match="there is a later run of that name"):
        gallery.Run(str(first))


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert run_main(gallery.main, ["--run", str(tmp_path)]) == 1
    assert "expected the folder of a run" in capsys.readouterr().err
