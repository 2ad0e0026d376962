"""Speed of the compiled ops: python -m benchmarks.ops [--device cpu|gpu] [--output results.json] [--quick] [--torch]

The result is the bytes that an op must move (each input and output once) divided by its time, as a fraction of the same device's copy
bandwidth. On the CPU the ops run in TensorFlow and are compared with their reference twins. On the GPU their kernels run without
TensorFlow, whose own overhead per op is as long as the kernels themselves, on arrays that are no longer in the cache; they are compared
with a copy of the same number of bytes and, with --torch, with the equivalent PyTorch composition. All cases run in each of several
rounds; the best round counts, since other load can only slow a round down.
"""

import argparse
import json
import os
import sys

from benchmarks.ops_cases import cases
from dnnlib import UsageError, atomic_output, run_main
from dnnlib.util import usable_cores


def main(argv):
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where to measure (default: cpu)")
    parser.add_argument("--output", help="JSON file for the results")
    parser.add_argument("--quick", action="store_true", help="one small case of each op")
    parser.add_argument("--torch", action="store_true", help="on the GPU, also compare with PyTorch (must be installed)")
    options = parser.parse_args(argv)
    chosen = cases(options.device, options.quick)
    if options.device == "gpu":
        from benchmarks import ops_gpu

        machine, rows = ops_gpu.measure_all(chosen, options.torch)
    elif options.torch:
        raise UsageError("--torch: needs --device gpu")
    else:
        from benchmarks import ops_tensorflow

        machine, rows = ops_tensorflow.measure_all(chosen)
    command = " ".join(["python -m benchmarks.ops", *argv])
    print(command)
    print_table(rows)
    if options.output:
        with atomic_output(options.output, "w") as file:
            json.dump({"command": command, "device": options.device, **machine, "cpus": usable_cores(), "load": os.getloadavg(),
                       "cases": rows}, file, indent=1)
    return 0


def print_table(rows):
    """One line per case, with a column for every implementation that was measured."""
    titles = [f"{'op':12} {'type':8} {'layout':6} {'N, C, H, W':18} {'ms':>8} {'of copy':>8}"]
    lines = [[f"{row['op']:12} {row['dtype']:8} {row['layout']:6} {', '.join(map(str, row['shape'])):18} {row['ms']:8.4f} "
              f"{row['of_copy']:8.0%}"] for row in rows]
    for other in [name for name in ("reference", "copy", "torch") if f"{name}_ms" in rows[0]]:
        titles.append(f"{other:>10} {'times':>6}")
        for line, row in zip(lines, rows):
            line.append(f"{row[other + '_ms']:10.4f} {row[other + '_ms'] / row['ms']:6.2f}")
    for line in [titles, *lines]:
        print(" ".join(line))


if __name__ == "__main__":
    sys.exit(run_main(main))
