"""Visualizations of a generator: `run` for run_network.py --vis, `training.visualize.generate` for generate.py."""

from training.visualize.kinds import check, run

__all__ = ["check", "run"]
