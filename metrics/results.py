"""Results: what a number is a number of, the files it goes to, and which ones may be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import sys

import numpy as np

from dnnlib import UserError
from dnnlib.files import read_lines
from dnnlib.log import format_time
from training.report.stats import IDENTITY_SETTINGS, METRICS_FILE

VERSION = "1"  # raised whenever a metric's number changes for the same images


def tool_name():
    """Name and versions of what computed a number."""
    return f"ganformer-tf metrics {VERSION}, Python {platform.python_version()}, NumPy {np.__version__}"


def warn(text):
    """One line on stderr for what went wrong without stopping the run."""
    print(f"warning: {text}", file=sys.stderr)


@dataclasses.dataclass
class Result:
    """One evaluation of one metric.

    Attributes:
        metric: name as in --metrics.
        values: name to number, the metric's own number first; empty when it failed.
        settings: everything the number depends on (spec of the result files; see docs/metrics.md).
        seconds: time it took, passes over the images included.
        error: why there is no number, or None.
    """

    metric: str
    values: dict[str, float]
    settings: dict[str, object]
    seconds: float = 0.0
    error: str | None = None

    @property
    def value(self):
        """The metric's own number (float), None when it failed."""
        return next(iter(self.values.values())) if self.values else None

    @property
    def subject(self):
        """What was evaluated: the snapshot, else the folder of images, else the network's name."""
        return self.settings.get("snapshot") or self.settings.get("images_dir") or self.settings.get("network")

    def line(self):
        """One line of text: values, then settings."""
        numbers = f"failed: {self.error}" if self.error else "  ".join(f"{name} {number:.6g}" for name, number in self.values.items())
        rest = "  ".join(f"{key}={json.dumps(value)}" for key, value in self.settings.items() if value is not None)
        return f"{self.subject}  {numbers}  time={self.seconds:.1f}s  {rest}"

    def summary(self):
        """What a person wants to see at once: numbers or error, of what, and how long it took."""
        numbers = "  ".join(f"{name} {value:.5g}" for name, value in self.values.items())
        return f"metric {self.metric}: {numbers or self.error}  ({self.subject}, {format_time(self.seconds)})"

    def as_dict(self):
        """Plain data for a line of metrics.jsonl."""
        return {
            "metric": self.metric,
            "value": self.value,
            "values": self.values,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "settings": self.settings,
        }


def snapshot_name(path, run_dir):
    """What a snapshot is called in a run's results: one of this run by its file name alone, another by its path; None for none."""
    own = path and os.path.dirname(os.path.abspath(path)) == os.path.abspath(run_dir)
    return os.path.basename(path) if own else path


def write(result, folder):
    """Append a result to metric-<name>.txt and metrics.jsonl in a run's folder."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"metric-{result.metric}.txt"), "a", encoding="utf-8") as file:
        file.write(result.line() + "\n")
    with open(os.path.join(folder, METRICS_FILE), "a", encoding="utf-8") as file:
        file.write(json.dumps(result.as_dict()) + "\n")


def read(folder):
    """Results stored in a run's metrics.jsonl, oldest first; incomplete lines are passed over."""
    names = [field.name for field in dataclasses.fields(Result)]
    return [Result(**{name: line[name] for name in names}) for line in read_lines(os.path.join(folder, METRICS_FILE), names)]


def differences(one, other):
    """Names of the settings that forbid comparing two results, in order; empty when they may be compared."""
    names = list(one.settings) + [name for name in other.settings if name not in one.settings]
    differing = [name for name in names if name not in IDENTITY_SETTINGS and one.settings.get(name) != other.settings.get(name)]
    return (["metric"] if one.metric != other.metric else []) + differing


def require_comparable(one, other):
    """Raise UserError, one line naming each differing setting, unless two results were made the same way."""
    differing = differences(one, other)
    if differing:
        pairs = (f"{name} {one.settings.get(name, one.metric)!r} against {other.settings.get(name, other.metric)!r}" for name in differing)
        raise UserError(f"results of {one.metric} and {other.metric} cannot be compared: {', '.join(pairs)}")


def network_fingerprint(network):
    """sha256 over the names and values of a network's variables, its first 16 hex digits."""
    digest = hashlib.sha256()
    for name, values in sorted(network.get_values().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]
