"""Fixtures and helpers that several test files share."""

import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GOLDEN_DIR = os.environ.get("GOLDEN_DIR", os.path.join(os.path.dirname(ROOT), "shared", "golden"))


def golden_path(*parts):
    """Path of a golden file or folder. An absent one skips the test, or fails it where GOLDEN_REQUIRED is set (CI)."""
    path = os.path.join(GOLDEN_DIR, *parts)
    if not os.path.exists(path):
        if os.environ.get("GOLDEN_REQUIRED"):
            pytest.fail(f"golden file {path} is missing")
        pytest.skip(f"golden file {path} is missing")
    return path


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
