"""Compare the newest results of runs: python -m metrics.compare RUN RUN ... [--metric fid]

The table has a column for each run and a row for each number that at least two of them have. Results with different settings (protocol,
crop, counts, feature network, ...) are refused with one line that names the runs and the difference.
"""

import argparse
import os
import sys

from dnnlib import UsageError, UserError, run_main
from metrics.results import read, require_comparable
from training.report.stats import COUNTS
from training.run_files import snapshot_kimg


def newest(folder):
    """Newest successful result of each metric in a run's metrics.jsonl: dict name -> Result.

    Raises:
        UserError: there is none.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder, expected that of a run, such as results/NAME-000")
    found = {result.metric: result for result in read(folder) if result.error is None}
    if not found:
        raise UserError(f"{folder}: no results found, looked for metrics.jsonl with at least one number")
    return found


def shared(runs, metric=None):
    """The metrics that at least two runs have, in order; of each, all results are comparable.

    Args:
        runs: dict name of the run -> its `newest` results.
        metric: consider only this one; None for all.

    Raises:
        UserError: there are none, or results are not comparable.
    """
    having = {}
    for run, results in runs.items():
        for name in results:
            if metric in (None, name):
                having.setdefault(name, []).append(run)
    found = [name for name, names in having.items() if len(names) > 1]
    if not found:
        listed = "; ".join(f"{run} has {', '.join(results)}" for run, results in runs.items())
        raise UserError(f"no two runs have {metric or 'a metric'} in common: {listed}")
    for name in found:
        first, *others = having[name]
        for other in others:
            require_comparable(runs[first][name], runs[other][name], (first, other))
    return found


def table(runs, metrics):
    """Rows of texts: the runs, what was evaluated in each, then the numbers of some `shared` metrics with their counts of images."""
    numbers = []
    for metric in metrics:
        results = [found[metric] for found in runs.values() if metric in found]
        counts = [str(results[0].settings.get(kind, "-")) for kind in COUNTS]
        numbers += [(metric, number, counts) for number in dict.fromkeys(number for result in results for number in result.values)]
    left = [["", *COUNTS], [""] * 3, *([number, *counts] for _, number, counts in numbers)]
    columns = [[run, *_column({metric: found[metric] for metric in metrics if metric in found}, numbers)] for run, found in runs.items()]
    return [[*start, *cells] for start, cells in zip(left, zip(*columns))]


def _column(results, numbers):
    """What was evaluated, then the values; each says of what if there are several."""
    subjects = {metric: _subject(result) for metric, result in results.items()}
    different = list(dict.fromkeys(subjects.values()))
    cells = [", ".join(different)]
    for metric, number, _ in numbers:
        value = results[metric].values.get(number) if metric in results else None
        cells.append("-" if value is None else f"{value:.6g}" + (f" ({subjects[metric]})" if len(different) > 1 else ""))
    return cells


def _subject(result):
    """The kimg of the run's own snapshot, else the name of what was evaluated."""
    kimg = snapshot_kimg(str(result.settings.get("snapshot")))
    return os.path.basename(result.subject) if kimg is None else f"kimg {kimg}"


def _run_names(folders):
    """Paths below the folder that holds all runs: mostly their names."""
    paths = [os.path.abspath(folder) for folder in folders]
    return [os.path.relpath(path, os.path.commonpath(list(map(os.path.dirname, paths)))) for path in paths]


def main(argv):
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m metrics.compare", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, at least two")
    parser.add_argument("--metric", help="compare only this metric (default: all that at least two runs have)")
    options = parser.parse_args(argv)
    runs = {name: newest(folder) for name, folder in zip(_run_names(options.runs), options.runs)}
    if len(runs) < 2:
        raise UsageError(f"RUN: got {', '.join(runs)}, expected at least two different run folders")
    rows = table(runs, shared(runs, options.metric))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
