"""The Makefile, run with make: which Python it uses, and what it refuses."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def script(path: pathlib.Path, body: str) -> pathlib.Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def make(*arguments: str, path: pathlib.Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{path}:/usr/bin:/bin"}
    environment.pop("MAKEFLAGS", None)
    return subprocess.run(["make", "-n", *arguments], cwd=str(ROOT), env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)


def test_shim_of_a_version_manager_is_passed_over(tmp_path):
    script(tmp_path / "python3.7", "echo 'python3.7: command not found' >&2; exit 127")
    installed = tmp_path / "versions" / "bin"
    installed.mkdir(parents=True)
    script(installed / "python3", f"exec {sys.executable} \"$@\"")
    script(tmp_path / "pyenv", f"echo {tmp_path / 'versions'}")
    result = make("test-all", f"PYTHON={sys.executable}", path=tmp_path)
    assert result.returncode == 0, result.stdout
    assert f"PYTHON={installed / 'python3'}" in result.stdout


def test_python_on_the_path_is_taken_first(tmp_path):
    script(tmp_path / "python3.7", f"exec {sys.executable} \"$@\"")
    result = make("test-all", f"PYTHON={sys.executable}", path=tmp_path)
    assert "test PYTHON=python3.7" in result.stdout
