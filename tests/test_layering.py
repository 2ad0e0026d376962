"""Which package may import which (docs/architecture.md), checked in the sources."""

import ast
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

ALLOWED = {
    "dnnlib": {"dnnlib"},
    "ops": {"ops", "dnnlib"},
    "dataset_tool": {"dataset_tool", "training", "dnnlib"},  # it writes what training.dataset reads
    "training": {"training", "ops", "dnnlib"},
    "metrics": {"metrics", "training", "dnnlib"},
}
PACKAGES = sorted([*ALLOWED, "tests", "benchmarks", "examples"])
ENTRY_POINTS = {"run_network", "prepare_data", "generate"}
NETWORK_INTERNALS = "training.networks"  # metrics and visualizations use networks only as dnnlib Network objects


def python_files(package):
    for folder, _, names in os.walk(os.path.join(ROOT, package)):
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py"))


def imported(path):
    """Dotted names of all modules that a source file imports, anywhere in it."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_what_lies_below(package):
    ours = set(PACKAGES) | ENTRY_POINTS
    files = list(python_files(package))
    assert files
    for path in files:
        tops = {name.split(".")[0] for name in imported(path)} & ours
        assert tops <= ALLOWED[package], f"{os.path.relpath(path, ROOT)} imports {sorted(tops - ALLOWED[package])}"


@pytest.mark.parametrize("package", [*sorted(ALLOWED), "benchmarks", "examples"])
def test_nothing_imports_the_tests(package):
    for path in python_files(package):
        assert "tests" not in {name.split(".")[0] for name in imported(path)}, os.path.relpath(path, ROOT)


def test_metrics_and_visualizations_do_not_look_inside_networks():
    for package in ("metrics", os.path.join("training", "visualize")):
        for path in python_files(package):
            inside = [name for name in imported(path) if name.startswith(NETWORK_INTERNALS)]
            assert not inside, f"{os.path.relpath(path, ROOT)} imports {inside}"


def test_only_the_framework_switches_tensorflow():
    for package in [*ALLOWED, "benchmarks", "examples"]:
        for path in python_files(package):
            if path.endswith(os.path.join("tflib", "setup.py")):
                continue
            with open(path, encoding="utf-8") as file:
                text = file.read()
            assert "disable_v2_behavior" not in text and "enable_resource_variables" not in text, path


def test_no_private_tensorflow_modules():
    allowed = {"tensorflow.python.ops.collective_ops", "tensorflow.python.ops"}  # collective all-reduce has no public name
    for package in ALLOWED:
        for path in python_files(package):
            private = {name for name in imported(path) if name.startswith(("tensorflow.python", "tensorflow.contrib", "tensorflow.keras"))}
            names = {name for name in private if name not in allowed and not name.startswith("tensorflow.python.ops.collective_ops")}
            assert not names, f"{os.path.relpath(path, ROOT)} imports {sorted(names)}"


@pytest.mark.parametrize("name", sorted(ENTRY_POINTS))
def test_tensorflow_is_told_to_be_quiet_before_it_is_loaded(name):
    code = f"import os, sys, {name}; print('tensorflow' in sys.modules, os.environ.get('TF_CPP_MIN_LOG_LEVEL'))"
    environment = {variable: value for variable, value in os.environ.items() if variable != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "False 3\n", done.stderr
