"""The compiled ops on the CPU, in TensorFlow, compared with their reference twins: the part of benchmarks.ops for --device cpu.

A run is a chain of ten identical ops on the same operands, so that the cost of starting a run hardly counts.
"""

import platform
import time

import numpy as np
import tensorflow.compat.v1 as tf

import ops
from benchmarks.ops_cases import RESAMPLING, TAPS
from dnnlib import tflib

ROUNDS = 5
CHAIN = 10
FIR = ops.resample_filter(list(TAPS))


def measure_all(cases):
    """Measure every case.

    Args:
        cases: the list that ops_cases.cases returns.

    Returns:
        (dict that describes the machine, list with a dict for every case: description, milliseconds, fraction of the copy bandwidth)
    """
    devices = tflib.init_tf("cpu")
    print(ops.set_implementation("cuda"))
    with tf.device(devices[0]):
        copy = copy_bandwidth()
        print(f"copy: {copy / 1e9:.1f} GB/s; TensorFlow {tf.version.VERSION}; {platform.processor() or platform.machine()}")
        rows = [measure(case, copy) for case in cases]
    return {"tensorflow": tf.version.VERSION, "copy_bytes_per_second": copy}, rows


def operands(shape, dtype, data_format):
    """Variables: x of shape [N, C, H, W], stored in the given layout, and all operands that may go with it."""
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
    return ops.upfirdn_2d(x, FIR, data_format=data_format, impl=impl, **RESAMPLING[op])


def measure(case, copy):
    """Measure one case: dict of its description, milliseconds and the fraction of the copy bandwidth."""
    op, dtype, data_format, shape = case
    with tflib.session_scope() as session:
        tensors = operands(shape, dtype, data_format)
        chains = {impl: chain(lambda impl=impl: build(op, tensors, data_format, impl)) for impl in ("cuda", "ref")}
        session.run(tf.global_variables_initializer())
        times = best_times({impl: (session, operation) for impl, (_, operation) in chains.items()})
        elements = int(np.prod(shape)) * (2 if op == "residual_sum" else 1) + int(np.prod(chains["cuda"][0].shape.as_list()))
    moved = elements * tf.as_dtype(dtype).size
    return {"op": op, "dtype": dtype, "layout": data_format, "shape": list(shape), "of_copy": moved / times["cuda"] / copy,
            "ms": 1e3 * times["cuda"], "reference_ms": 1e3 * times["ref"]}


def chain(build_one):
    """CHAIN identical operations that run one after the other. Returns (the first result, an operation that needs all results).

    One number of every result is used: TensorFlow drops operations that only a control dependency needs.
    """
    results, used = [], []
    for _ in range(CHAIN):
        with tf.control_dependencies(results[-1:]):
            results.append(build_one())
            used.append(tf.reshape(results[-1], [-1])[0])
    return results[0], tf.add_n(used).op


def best_times(fetches):
    """Best time in seconds of one link of every chain (session, operation), measured in turn."""
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


def copy_bandwidth():
    """Bytes per second that an elementwise TensorFlow operation reads and writes."""
    size = 4 << 20
    with tflib.session_scope() as session:
        x = tf.get_variable("x", initializer=tf.ones([size]))
        session.run(tf.global_variables_initializer())
        return 2 * 4 * size / best_times({"copy": (session, chain(lambda: -x.value())[1])})["copy"]
