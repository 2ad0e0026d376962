"""Every command of the README, run in the order in which they appear, with small sizes and local files instead of downloads."""

import glob
import os
import re
import shlex
import subprocess
import sys

import pytest

from examples import demo
from tests.conftest import ROOT, on_one_stack
from tests.metrics_standins import write_features_dir

TINY = "--channel-base 64 --channel-max 8 --batch-size 4 --batch-gpu 4 --total-kimg 0.016 --metrics none --gpus cpu"
SNAPSHOT = r"(gdrive:\S+|results/exp-000/network-snapshot-000120\.pkl)"
EXPERIMENT = "results/clevr-scratch-000"

# How each kind of command is changed so that it runs here: (pattern, extra words). The first match counts.
RULES = [
    (r"^make demo$", None),  # test_make_targets
    (r"^make test$", None),
    (r"^pip install", None),  # `make` runs it
    (r"^nvcc test_nvcc", None),  # tests/test_ops_builder.py compiles it
    (r"^python generate\.py .*--images-num 32", "--images-num 2 --gpus cpu"),
    (r"^python generate\.py", "--gpus cpu"),
    (r"^python prepare_data\.py --ffhq", "--mirror http://127.0.0.1:9"),  # no server answers there: one clear error line
    (r"^python prepare_data\.py --task", ""),
    (r"^python prepare_data\.py --scenes", "--max-images 8 --resolution 16"),
    (r"^python prepare_data\.py --check", ""),
    (r"^python run_network\.py --train .*--ganformer-default", f"--components-num 2 --latent-size 16 {TINY}"),
    (r"^python run_network\.py --train .*--baseline ViTGAN", f"--vit-dim 32 --vit-heads 2 --vit-depth 1 --latent-size 16 {TINY}"),
    (r"^python run_network\.py --train .*--baseline", f"--latent-size 16 {TINY}"),
    (r"^python run_network\.py --eval .*--metrics", "--eval-images-num 12 --features-dir features --gpus cpu"),
    (r"^python run_network\.py .*--vis", "--vis-num 2 --vis-rich-num 1 --metrics none --gpus cpu"),
    (r"^python run_network\.py --help$", ""),
    (r"^python -m ops\.doctor$", ""),
    (r"^python -m benchmarks\.step$", "--help"),
    (r"^python -m tests\.golden", "--help"),
]
MAY_FAIL = {"prepare_data.py --ffhq": "error:", "ops.doctor": "problem:"}  # with a one-line reason


def readme_commands():
    """Commands in the README's bash blocks, then those in its text that start with python."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        text = file.read()
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.S)
    inline = re.findall(r"`(python [^`]*)`", text)
    return [line for block in blocks for line in block.splitlines() if line.strip()] + inline


def rule_of(command):
    for pattern, extra in RULES:
        if re.search(pattern, command):
            return pattern, extra
    raise AssertionError(f"README command without a rule here: {command}")


def execute(command, folder):
    """Run a command with this Python and the repository's files, in a separate folder."""
    words = shlex.split(command)
    words[0] = sys.executable
    if words[1].endswith(".py"):
        words[1] = os.path.join(ROOT, words[1])
    environment = dict(os.environ, PYTHONPATH=ROOT, GANFORMER_CACHE=os.path.join(folder, "cache"))
    return subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def workplace(tmp_path):
    """A folder with what the README assumes: some photos, a prepared dataset, feature networks, a trained model."""
    from PIL import Image

    from dataset_tool.scenes import draw_scene

    folder = str(tmp_path)
    for name in ("photos", "features"):
        os.makedirs(os.path.join(folder, name))
    for index in range(8):
        Image.fromarray(draw_scene(0, index, 32).image).save(os.path.join(folder, "photos", f"{index}.png"))
    prepared = execute("python prepare_data.py --scenes --task clevr --max-images 16 --resolution 16 --labels none", folder)
    assert prepared.returncode == 0, prepared.stdout
    prepared = execute("python prepare_data.py --scenes --task cifar10 --max-images 16 --resolution 32 --labels none", folder)
    assert prepared.returncode == 0, prepared.stdout
    write_features_dir(os.path.join(folder, "features"))
    return folder


@on_one_stack
@pytest.mark.slow
def test_every_command(workplace):
    run = []
    commands = readme_commands()
    training = [c for c in commands if "--train" in c and "clevr-scratch" in c]
    for command in training + [c for c in commands if c not in training]:
        pattern, extra = rule_of(command)
        if extra is None:
            continue
        snapshots = glob.glob(os.path.join(workplace, EXPERIMENT, "network-snapshot-*.pkl"))
        command = re.sub(SNAPSHOT, *snapshots[:1] or [""], f"{command} {extra}".replace(" PATH...", ""))
        done = execute(command, workplace)
        excuse = [mark for words, mark in MAY_FAIL.items() if words in command]
        assert done.returncode == 0 or (excuse and excuse[0] in done.stdout), f"{command}\n{done.stdout}"
        run.append(pattern)
    assert {pattern for pattern, extra in RULES if extra is not None} <= set(run)  # no rule without a command
    assert len(glob.glob(os.path.join(workplace, "images", "*.png"))) >= 2
    assert os.path.exists(os.path.join(workplace, EXPERIMENT, "visuals", "layer_maps"))
    assert os.path.exists(os.path.join(workplace, EXPERIMENT, "metric-fid.txt"))
    assert os.path.exists(os.path.join(workplace, "datasets", "my-data", "dataset.json"))


@on_one_stack
@pytest.mark.slow
def test_demo(tmp_path, monkeypatch, capsys):
    """The demo at a thousandth of its length: every step runs, the table has numbers; a second run continues, which needs less."""
    folder = str(tmp_path / "demo")
    small = ["--kimg", "0.064", "--images", "32", "--folder", folder]
    words = [sys.executable, "-m", "examples.demo", *small]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(r"sliced Wasserstein distance, trained +\d", done.stdout), done.stdout
    assert glob.glob(os.path.join(folder, "images", "*.png"))
    (report,) = glob.glob(os.path.join(folder, "results", "demo-*", "report.html"))
    assert os.path.getsize(report) < 15e6

    monkeypatch.setattr(demo.subprocess, "call", lambda words: 0)
    demo.main(small)
    first, second = (re.findall(r"^\$ (.*)", shown, re.M) for shown in (done.stdout, capsys.readouterr().out))
    assert "prepare_data.py" in first[0] and "--total-kimg 0 " in first[1] and second == first[2:]


def test_make_targets():
    """`make demo` and `make test` run what the other tests run."""
    for target, words in (("demo", "-m examples.demo"), ("test", "-m pytest")):
        shown = subprocess.run(["make", "--dry-run", target, f"PYTHON={sys.executable}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert shown.returncode == 0 and words in shown.stdout


def test_make_refuses_another_python(tmp_path):
    fake = tmp_path / "python3"
    fake.write_text('#!/bin/sh\ncase "$1" in -c) echo none;; *) echo "Python 3.9.1";; esac\n')
    fake.chmod(0o755)
    done = subprocess.run(["make", "setup", f"PYTHON={fake}"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode != 0
    assert "(Python 3.9.1) is not supported" in done.stdout and "3.10 to 3.13" in done.stdout
