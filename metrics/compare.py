"""Compare the newest results of two runs: python -m metrics.compare RUN RUN [--metric fid]

Results with different settings (protocol, crop, counts, feature network, ...) are refused with one line that names the difference.
"""

import argparse
import sys

from dnnlib import UserError, run_main
from metrics.results import read, require_comparable


def newest(folder):
    """Newest successful result of each metric in a run's metrics.jsonl: dict name -> Result.

    Raises:
        UserError: there is none.
    """
    found = {result.metric: result for result in read(folder) if result.error is None}
    if not found:
        raise UserError(f"{folder}: no results found, looked for metrics.jsonl with at least one number")
    return found


def main(argv):
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, metavar="RUN", help="run folders")
    parser.add_argument("--metric", help="compare only this metric (default: all that both runs have)")
    options = parser.parse_args(argv)
    one, other = (newest(folder) for folder in options.runs)
    shared = [name for name in one if name in other and options.metric in (None, name)]
    if not shared:
        raise UserError(f"no metric in common: {options.runs[0]} has {', '.join(one)}, {options.runs[1]} has {', '.join(other)}")
    for name in shared:
        require_comparable(one[name], other[name])
        for number, value in one[name].values.items():
            print(f"{number}  {value:.6g}  {other[name].values.get(number, float('nan')):.6g}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
