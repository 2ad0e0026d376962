"""stats.jsonl: the numbers of every tick, one JSON object per line, and what the report draws from them and from metrics.jsonl."""

from __future__ import annotations

import json
import math
import os
from typing import NamedTuple

from dnnlib.files import read_lines
from training import run_files

STATS_FILE = "stats.jsonl"
METRICS_FILE = "metrics.jsonl"
# Settings that may differ between two results of metrics.jsonl that are still comparable.
IDENTITY_SETTINGS = ("network", "network_fingerprint", "snapshot", "images_dir", "tool")
COUNTS = ("reals", "fakes")  # of images; the table has columns for them
MOST_POINTS = 500
# Charts of the report: prefix of the numbers' names -> title. Numbers with any other prefix get a chart named after it.
TITLES = {
    "Loss": "Losses", "Scores": "Scores of the discriminator", "Regularizer": "Regularizers", "Gradients": "Gradient norms",
    "Path": "Path lengths", "Timing": "Speed", "Resources": "Memory", "Rates": "Learning rates", "Skipped": "Skipped updates",
}  # fmt: skip
LEFT_OUT = ("Progress/", "Timing/seconds_per_kimg", "Timing/total_hours")


def append_stats(run_dir, images, values):
    """Append the numbers of a tick to stats.jsonl.

    Args:
        run_dir: folder of the run.
        images: number of images shown since the start of the run.
        values: dict name -> float.
    """
    with open(os.path.join(run_dir, STATS_FILE), "a", encoding="utf-8") as file:
        file.write(json.dumps({"images": int(images), **{name: float(value) for name, value in values.items()}}) + "\n")


def training_charts(run_dir):
    """Charts of the training's numbers.

    Returns:
        list of dicts: title, series (list of dicts: name, points [[kimg, value], ...]).
    """
    ticks = []
    for line in read_lines(os.path.join(run_dir, STATS_FILE), ["images"]):
        while ticks and ticks[-1]["images"] >= line["images"]:
            ticks.pop()  # the run continued from an earlier snapshot, which discards everything after it
        ticks.append(line)
    groups = {prefix: {} for prefix in TITLES}
    for tick in ticks:
        for name, value in tick.items():
            if "/" in name and not name.startswith(LEFT_OUT) and math.isfinite(value):
                prefix, _, short = name.partition("/")
                points = groups.setdefault(prefix, {}).setdefault(short.replace("_", " "), [])
                points.append([tick["images"] / 1000, value])
    return [_chart(TITLES.get(prefix, prefix), series) for prefix, series in groups.items() if series]


def metric_charts(run_dir):
    """Charts of the metrics, one each, over the snapshots of this run.

    Results with different settings form separate series, which name what differs.

    Returns:
        As `training_charts`; each dict also has latest, the newest result for the last snapshot.
    """
    charts = []
    for metric, found in _results(run_dir).items():
        own = [result for result in found if result.kimg is not None]
        if own:
            charts.append({**_chart(metric, _metric_series(own)), "latest": _latest(own)})
    return charts


def metric_table(run_dir):
    """The newest numbers for what this run has not trained: snapshots from elsewhere, and folders of images.

    Returns:
        list of dicts, one for each number: metric (the number's name), value, of (path of the snapshot or folder), reals, fakes (counts of
        images), settings (those in which the run's results of the metric differ).
    """
    rows = {}
    for found in _results(run_dir).values():
        for result, differing in zip(found, _differing(found)):
            if result.elsewhere is not None:
                counts = {kind: result.settings.get(kind) for kind in COUNTS}
                unlike = ", ".join(f"{name} {value}" for name, value in differing if name not in COUNTS and value is not None)
                for name, value in result.values.items():
                    key = (name, result.elsewhere, *counts.values(), unlike)
                    rows[key] = {"metric": name, "value": value, "of": result.elsewhere, **counts, "settings": unlike}
    return list(rows.values())


def evaluated_dataset(run_dir):
    """What a run's results say of the dataset: dict of its name (of several datasets their names), or {}."""
    settings = [line["settings"] for line in read_lines(os.path.join(run_dir, METRICS_FILE), ["settings"])]
    names = dict.fromkeys(found["dataset"] for found in settings if "dataset" in found)
    return {"name": ", ".join(names)} if names else {}


class _Result(NamedTuple):
    """Numbers of one metric: of a snapshot of the run (its kimg), or of a snapshot from elsewhere or a folder of images (its path)."""

    kimg: float | None
    elsewhere: str | None
    settings: dict  # those that matter
    values: dict


def _results(run_dir):
    """A run's results: dict metric -> list of _Result, oldest first."""
    found = {}
    for line in read_lines(os.path.join(run_dir, METRICS_FILE), ["metric", "settings", "values"]):
        values = {name: value for name, value in line["values"].items() if math.isfinite(value)}  # JSON has no others
        if values:
            source = line["settings"].get("snapshot") or line["settings"].get("images_dir")
            kimg = run_files.snapshot_kimg(str(line["settings"].get("snapshot")))
            settings = {name: value for name, value in line["settings"].items() if name not in IDENTITY_SETTINGS}
            found.setdefault(line["metric"], []).append(_Result(kimg, source if kimg is None else None, settings, values))
    return found


def _latest(results):
    """The metric's own number (the first of its values) in the newest result for the last snapshot."""
    return next(iter(sorted(results, key=lambda result: result.kimg)[-1].values.values()))


def _metric_series(results):
    """Curves of one metric's results: dict title -> points."""
    series = {}
    for result, differing in zip(results, _differing(results)):
        unlike = "".join(f", {name} {value}" for name, value in differing)
        for name, value in result.values.items():
            series.setdefault(name + unlike, {})[result.kimg] = value
    return {title: sorted(points.items()) for title, points in series.items()}


def _differing(results):
    """For each of one metric's results its settings that differ between them: list of (name, value)."""
    names = dict.fromkeys(name for result in results for name in result.settings)
    unlike = [name for name in names if any(result.settings.get(name) != results[0].settings.get(name) for result in results)]
    return [[(name, result.settings.get(name)) for name in unlike] for result in results]


def _chart(title, series):
    return {"title": title, "series": [{"name": name, "points": thinned(points)} for name, points in series.items()]}


def thinned(points, most=MOST_POINTS):
    """At most `most` points: means over groups of neighbours of equal size, and the last point itself."""
    points = [[float(f"{x:.6g}"), float(f"{y:.5g}")] for x, y in points]
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / (most - 1))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    means = [[sum(column) / len(group) for column in zip(*group)] for group in groups]
    return [[float(f"{x:.6g}"), float(f"{y:.5g}")] for x, y in means] + [points[-1]]
