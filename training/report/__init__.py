"""report.html: one self-contained page about a run, made only from the files in its folder."""

from training.report.page import write
from training.report.stats import append_stats

__all__ = ["append_stats", "write"]
