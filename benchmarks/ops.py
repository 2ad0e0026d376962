"""Speed of the compiled ops: python -m benchmarks.ops [--device cpu|gpu] [--output results.json] [--quick]

Bytes that an op must move (each input and output once) over its time, as a fraction of the same device's copy bandwidth, beside the
reference twin in the same TensorFlow and, with --torch, the equivalent PyTorch composition on the same GPU. A run is a chain of ten
equal ops on the same operands, which leaves out what starting a run costs. Cases run in turn, several rounds; the best round counts,
since other load can only slow a round down.
"""

import argparse
import itertools
import json
import os
import platform
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf

import ops
from dnnlib import UserError, atomic_output, run_main, tflib

ROUNDS = 5
CHAIN = 10
FUSIONS = ("layer_end", "residual_sum")  # channels last only
FIR = ops.resample_filter([1, 3, 3, 1])
OPS = ("bias_act", *FUSIONS, "up", "down", "filter")


def main(argv):
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where to measure (default: cpu)")
    parser.add_argument("--output", help="JSON file for the results")
    parser.add_argument("--quick", action="store_true", help="one small case of each op")
    parser.add_argument("--torch", action="store_true", help="compare with PyTorch on the GPU (must be installed)")
    options = parser.parse_args(argv)
    devices = tflib.init_tf("cpu" if options.device == "cpu" else "0")
    if options.device == "gpu" and devices[0].startswith("/cpu"):
        raise UserError("--device gpu: TensorFlow sees no GPU (python -m ops.doctor says why)")
    print(ops.set_implementation("cuda"))
    with tf.device(devices[0]):
        copy = copy_bandwidth(options.device)
        print(f"copy: {copy / 1e9:.1f} GB/s; TensorFlow {tf.version.VERSION}; {platform.processor() or platform.machine()}")
        rows = [measure(case, copy, options.torch) for case in cases(options.device, options.quick)]
    print_table(rows)
    if options.output:
        with atomic_output(options.output, "w") as file:
            json.dump({"device": options.device, "tensorflow": tf.version.VERSION, "cpus": os.cpu_count(), "load": os.getloadavg(),
                       "copy_bytes_per_second": copy, "cases": rows}, file, indent=1)
    return 0


def cases(device, quick):
    """(op, dtype name, data format, shape [N, C, H, W]) of every measurement."""
    if quick:
        return [(op, "float32", "NHWC", (8, 64, 32, 32)) for op in OPS]
    if device == "cpu":
        return list(itertools.product(OPS, ("float32",), ("NHWC",), [(8, 64, 32, 32), (8, 128, 64, 64), (4, 3, 128, 128)]))
    shapes = [(8, 512, 32, 32), (8, 256, 64, 64), (8, 128, 128, 128), (8, 64, 256, 256)]
    every = itertools.product(OPS, ("float32", "float16"), ("NHWC", "NCHW"), shapes)
    return [case for case in every if case[2] == "NHWC" or case[0] not in FUSIONS]


def operands(shape, dtype, data_format):
    """Variables: x of the shape N, C, H, W in the given layout, and all that may go with it."""
    n, c, h, w = shape
    picture = (n, h, w, c) if data_format == "NHWC" else shape
    shapes = {"x": picture, "residual": picture, "bias": (c,), "scale": (n, c), "noise": (1, h, w, 1)}
    random = np.random.RandomState(0)
    return {name: tf.get_variable(name, initializer=tf.cast(tf.constant(random.randn(*size), tf.float32), dtype)).value()
            for name, size in shapes.items()}


def build(op, tensors, data_format, impl):
    """The op on tensors of `operands`."""
    x, bias = tensors["x"], tensors["bias"]
    if op == "bias_act":
        return ops.fused_bias_act(x, bias, act="lrelu", axis=1 if data_format == "NCHW" else -1, impl=impl)
    if op == "layer_end":
        return ops.scaled_bias_act(x, bias, scale=tensors["scale"], noise=tensors["noise"], act="lrelu", impl=impl)
    if op == "residual_sum":
        return ops.scaled_bias_act(x, residual=tensors["residual"], gain=float(np.sqrt(0.5)), impl=impl)
    options = {"up": {"up": 2, "pad": (2, 1)}, "down": {"down": 2, "pad": (1, 1)}, "filter": {"pad": (1, 1)}}[op]
    return ops.upfirdn_2d(x, FIR, data_format=data_format, impl=impl, **options)


def measure(case, copy, with_torch):
    """Times of one case: dict of its description, milliseconds and the fraction of the copy bandwidth."""
    op, dtype, data_format, shape = case
    with tflib.session_scope() as session:
        tensors = operands(shape, dtype, data_format)
        chains = {impl: chain(lambda impl=impl: build(op, tensors, data_format, impl)) for impl in ("cuda", "ref")}
        session.run(tf.global_variables_initializer())
        times = best_times({impl: (session, operation) for impl, (_, operation) in chains.items()})
        elements = int(np.prod(shape)) * (2 if op == "residual_sum" else 1) + int(np.prod(chains["cuda"][0].shape.as_list()))
    moved = elements * tf.as_dtype(dtype).size
    row = {"op": op, "dtype": dtype, "layout": data_format, "shape": list(shape), "of_copy": moved / times["cuda"] / copy,
           "ms": 1e3 * times["cuda"], "reference_ms": 1e3 * times["ref"]}
    if with_torch:
        row["torch_ms"] = 1e3 * torch_time(op, dtype, data_format, shape)
    return row


def chain(build_one):
    """CHAIN equal operations that run one after the other. Returns (the first result, an operation that needs all).

    A number of every result is used: TensorFlow drops operations that nothing but the order depends on.
    """
    results, used = [], []
    for _ in range(CHAIN):
        with tf.control_dependencies(results[-1:]):
            results.append(build_one())
            used.append(tf.reshape(results[-1], [-1])[0])
    return results[0], tf.add_n(used).op


def best_times(fetches):
    """Seconds of one link of every chain (session, operation), measured in turn."""
    best = {}
    for _ in range(ROUNDS):
        for name, (session, operation) in fetches.items():
            run = session.make_callable(operation)
            run()
            start, count = time.perf_counter(), 0
            while count < 3 or time.perf_counter() - start < 0.1:
                run()
                count += 1
            best[name] = min(best.get(name, np.inf), (time.perf_counter() - start) / count / CHAIN)
    return best


def copy_bandwidth(device):
    """Bytes per second, read and written, of an element-wise operation in TensorFlow on this device."""
    size = (64 << 20) if device == "gpu" else (4 << 20)
    with tflib.session_scope() as session:
        x = tf.get_variable("x", initializer=tf.ones([size]))
        session.run(tf.global_variables_initializer())
        return 2 * 4 * size / best_times({"copy": (session, chain(lambda: -x.value())[1])})["copy"]


def torch_time(op, dtype, data_format, shape):
    """Seconds of the composition a PyTorch user would write: grouped convolutions with the FIR, or add, leaky_relu and multiply."""
    import torch
    import torch.nn.functional as functional

    c = shape[1]
    memory = torch.channels_last if data_format == "NHWC" else torch.contiguous_format
    x = torch.randn(shape, device="cuda", dtype=getattr(torch, dtype)).to(memory_format=memory)
    kernel = torch.tensor(FIR, device="cuda", dtype=x.dtype)[None, None].repeat(c, 1, 1, 1)
    residual, bias = torch.randn_like(x), torch.zeros([1, c, 1, 1], device="cuda", dtype=x.dtype)
    scale, noise = torch.ones([shape[0], c, 1, 1], device="cuda", dtype=x.dtype), torch.zeros_like(x[:1, :1])
    run = {
        "bias_act": lambda: functional.leaky_relu(x + bias, 0.2) * np.sqrt(2),
        "layer_end": lambda: functional.leaky_relu(x * scale + noise + bias, 0.2) * np.sqrt(2),
        "residual_sum": lambda: (x + residual) * np.sqrt(0.5),
        "up": lambda: functional.conv_transpose2d(x, 4 * kernel, stride=2, padding=1, groups=c),
        "down": lambda: functional.conv2d(x, kernel, stride=2, padding=1, groups=c),
        "filter": lambda: functional.conv2d(x, kernel, padding=1, groups=c),
    }[op]
    best = np.inf
    for _ in range(ROUNDS):
        run()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(20):
            run()
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / 20)
    return best


def print_table(rows):
    """One line a case."""
    print(f"{'op':12} {'type':8} {'layout':6} {'N, C, H, W':18} {'ms':>8} {'of copy':>8} {'reference':>10} {'times':>6}")
    for row in rows:
        size = ", ".join(str(value) for value in row["shape"])
        line = f"{row['op']:12} {row['dtype']:8} {row['layout']:6} {size:18} {row['ms']:8.3f} {row['of_copy']:8.0%}"
        line += f" {row['reference_ms']:10.3f} {row['reference_ms'] / row['ms']:6.1f}"
        print(line + (f"  torch {row['torch_ms']:.3f}" if "torch_ms" in row else ""))


if __name__ == "__main__":
    sys.exit(run_main(main))
