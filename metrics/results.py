"""Results: the numbers with their settings, the files they are written to, and which ones are comparable."""

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

VERSION = "1"  # raised whenever a metric gives other numbers for the same images


def tool_name():
    """Name and versions of the software that computes the numbers."""
    return f"ganformer-tf metrics {VERSION}, Python {platform.python_version()}, NumPy {np.__version__}"


def warn(text):
    """Print one line on stderr about a problem that does not stop the run."""
    print(f"warning: {text}", file=sys.stderr)


@dataclasses.dataclass
class Result:
    """One evaluation of one metric.

    Attributes:
        metric: name as in --metrics.
        values: dict name -> number, the metric's own number first; empty if it failed.
        settings: everything that the numbers depend on (see docs/metrics.md).
        seconds: time it took, including passes over the images.
        error: why there is no number, or None.
    """

    metric: str
    values: dict[str, float]
    settings: dict[str, object]
    seconds: float = 0.0
    error: str | None = None

    @property
    def value(self):
        """The metric's own number (float), None if it failed."""
        return next(iter(self.values.values())) if self.values else None

    @property
    def subject(self):
        """What was evaluated: the name of the snapshot, else of the folder of images, else of the network."""
        return self.settings.get("snapshot") or self.settings.get("images_dir") or self.settings.get("network")

    def line(self):
        """One line of text: the values, then the settings."""
        numbers = f"failed: {self.error}" if self.error else "  ".join(f"{name} {number:.6g}" for name, number in self.values.items())
        rest = "  ".join(f"{key}={json.dumps(value)}" for key, value in self.settings.items() if value is not None)
        return f"{self.subject}  {numbers}  time={self.seconds:.1f}s  {rest}"

    def summary(self):
        """One line for people: the numbers or the error, what was evaluated, and how long it took."""
        numbers = "  ".join(f"{name} {value:.5g}" for name, value in self.values.items())
        return f"metric {self.metric}: {numbers or self.error}  ({self.subject}, {format_time(self.seconds)})"

    def as_dict(self):
        """Plain data, for a line of metrics.jsonl."""
        return {
            "metric": self.metric,
            "value": self.value,
            "values": self.values,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "settings": self.settings,
        }


def snapshot_name(path, run_dir):
    """Name of a snapshot in a run's results: its file name for a snapshot of this run, its path for another one, None for none."""
    own = path and os.path.realpath(os.path.dirname(path)) == os.path.realpath(run_dir)  # either may go through a link
    return os.path.basename(path) if own else path


def write(result, folder):
    """Append a result to metric-<name>.txt and metrics.jsonl in a run's folder."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"metric-{result.metric}.txt"), "a", encoding="utf-8") as file:
        file.write(result.line() + "\n")
    with open(os.path.join(folder, METRICS_FILE), "a", encoding="utf-8") as file:
        file.write(json.dumps(result.as_dict()) + "\n")


def read(folder):
    """Results stored in a run's metrics.jsonl, oldest first; incomplete lines are skipped."""
    names = [field.name for field in dataclasses.fields(Result)]
    return [Result(**{name: line[name] for name in names}) for line in read_lines(os.path.join(folder, METRICS_FILE), names)]


def differences(one, other):
    """What makes two results incomparable: list of (setting, value in one, value in the other); empty if they are comparable.

    The truncation of images from elsewhere is not known; that is no difference.
    """
    left, right = ({"metric": result.metric, **result.settings} for result in (one, other))
    pairs = [(name, left.get(name), right.get(name)) for name in {**left, **right} if name not in IDENTITY_SETTINGS]
    return [pair for pair in pairs if pair[1] != pair[2] and not (pair[0] == "truncation" and None in pair)]


def require_comparable(one, other, names=None):
    """Raise UserError, with one line that names each differing setting, unless two results are comparable.

    Args:
        one, other: Result.
        names: what the message calls the evaluated ones (default: their subjects).
    """
    differing = differences(one, other)
    if differing:
        what = " and ".join(f"{result.metric} of {name}" for result, name in zip((one, other), names or (one.subject, other.subject)))
        pairs = ", ".join(f"{name} {value!r} against {different!r}" for name, value, different in differing)
        raise UserError(f"{what} cannot be compared: {pairs}")


def network_fingerprint(network):
    """The first 16 hex digits of the sha256 over the names and values of a network's variables."""
    digest = hashlib.sha256()
    for name, values in sorted(network.get_values().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]
