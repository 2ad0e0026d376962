#!/usr/bin/env python3
"""Prepare datasets: see --help."""

import dnnlib  # noqa: F401 isort: skip (it says what this Python lacks)

import sys

from dataset_tool.cli import main
from dnnlib import run_main

if __name__ == "__main__":
    sys.exit(run_main(main))
