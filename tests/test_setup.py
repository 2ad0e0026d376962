"""The set-up: which Python the Makefile uses, what it refuses, and what requirements.txt asks for."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).resolve().parent.parent
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def script(path: pathlib.Path, body: str) -> pathlib.Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def make(*arguments: str, path: pathlib.Path, run: bool = False) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{path}:/usr/bin:/bin"}
    environment.pop("MAKEFLAGS", None)
    return subprocess.run(["make", *(() if run else ("-n",)), *arguments], cwd=str(ROOT), env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)


@needs_make
def test_shim_of_a_version_manager_is_passed_over(tmp_path):
    script(tmp_path / "python3.7", "echo 'python3.7: command not found' >&2; exit 127")
    installed = tmp_path / "all versions" / "bin"
    installed.mkdir(parents=True)
    script(installed / "python3", f"exec '{sys.executable}' \"$@\"")
    script(tmp_path / "pyenv", f"echo {tmp_path / 'all versions'}")
    result = make("test-all", f"PYTHON={sys.executable}", path=tmp_path)
    assert result.returncode == 0, result.stdout
    assert f"PYTHON=\"{installed / 'python3'}\"" in result.stdout


@needs_make
def test_python_on_the_path_is_taken_first(tmp_path):
    script(tmp_path / "python3.7", f"exec '{sys.executable}' \"$@\"")
    result = make("test-all", f"PYTHON={sys.executable}", path=tmp_path)
    assert 'test PYTHON="python3.7"' in result.stdout


@needs_make
@pytest.mark.parametrize("machine, words, installs", [
    ("x86_64", "NVIDIA GPU found: installing the CUDA libraries", True), ("aarch64", "PyPI's TensorFlow for aarch64 has no CUDA", False)])
def test_cuda_libraries_come_only_where_tensorflow_uses_them(machine, words, installs, tmp_path):
    for name, body in (("nvidia-smi", ""), ("uname", f"echo {machine}"), ("python", 'echo "$@"')):
        script(tmp_path / name, body)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    script(tmp_path / "venv" / "bin" / "python", 'echo "$@"')
    result = make("setup", f"PYTHON={tmp_path / 'python'}", "STACK=tf2", f"VENV={tmp_path / 'venv'}", path=tmp_path, run=True)
    assert result.returncode == 0 and words in result.stdout
    assert ("tensorflow[and-cuda]" in result.stdout) == installs


@pytest.mark.parametrize("python", ["3.7", "3.8", "3.9", "3.10", "3.13", "3.14"])
def test_no_python_gets_half_of_the_requirements(python):
    """pip says that there is no TensorFlow 2.21 for Python 3.9; without that line it would install the rest and say nothing."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    asked = [Requirement(line) for line in lines if not line.startswith("#")]
    names = [line.name for line in asked if line.marker is None or line.marker.evaluate({"python_version": python})]
    today = ["tensorflow", "numpy", "scipy", "h5py", "pillow", "lmdb", "requests", "tqdm", "google-crc32c"]
    assert sorted(names) == sorted(["tensorflow-gpu", "protobuf", *today[1:]] if python == "3.7" else today)
