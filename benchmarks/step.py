"""Speed and memory of training and sampling: python -m benchmarks.step [--cases sample-64,train-64] [--output results.json]

Every case runs in a process of its own and prints images/s, the arithmetic rate of its convolutions and matrix products, and that rate as
a fraction of two ceilings measured in the same process: a large matrix product and a 3×3 convolution of 128 channels at 64×64. Peak memory
is the process's largest resident size; start-up is import, graph building and initial values.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

import numpy as np

from dnnlib import UsageError, atomic_output, run_main

CASES = {  # name: (resolution, images at once, train)
    "sample-64": (64, 8, False),
    "sample-256": (256, 4, False),
    "train-64": (64, 8, True),
    "train-256": (256, 4, True),
}
COMPONENTS, LATENT_SIZE = 16, 512
ROUNDS = 5


def main(argv):
    """Run the cases one by one; print a table.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="comma list (default: all)")
    parser.add_argument("--gpus", default="cpu", help="GPU number, or cpu (default)")
    parser.add_argument("--output", help="JSON file for the results")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.case:
        print(json.dumps(measure(options.case, options.gpus)))
        return 0
    names = options.cases.split(",")
    for name in names:
        if name not in CASES:
            raise UsageError(f"--cases: got {name}, accepted: {', '.join(CASES)}")
    results = [_in_process(name, options.gpus) for name in names]
    if options.output:
        with atomic_output(options.output, "w") as file:
            json.dump(results, file, indent=1)
    return 0


def _in_process(name, gpus):
    command = [sys.executable, "-m", "benchmarks.step", "--case", name, "--gpus", gpus]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    result = json.loads(output.splitlines()[-1])
    print("  ".join(f"{key} {value}" for key, value in result.items()), flush=True)
    return result


def measure(name, gpus):
    """One case: dict of names and numbers (seconds, GFLOP/s, GB)."""
    resolution, batch, train = CASES[name]
    start = time.perf_counter()
    from dnnlib import tflib

    tflib.init_tf(gpus)
    with tflib.session_scope():
        run, images = (_training if train else _sampling)(resolution, batch)
        startup = time.perf_counter() - start
        first = _seconds(run)
        seconds = min(_seconds(run) for _ in range(ROUNDS))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        flops = 2 * multiply_adds(run.fetches, batch)
    rates = ceilings()
    rate = flops / seconds / 1e9
    return {
        "case": name,
        "images_per_second": round(images / seconds, 3),
        "gflops": round(rate, 1),
        "of_matrix_product": round(rate / rates["matrix"], 3),
        "of_convolution": round(rate / rates["convolution"], 3),
        "matrix_gflops": round(rates["matrix"], 1),
        "convolution_gflops": round(rates["convolution"], 1),
        "startup_seconds": round(startup, 1),
        "first_run_seconds": round(first, 1),
        "peak_memory_gb": round(memory, 2),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }


class Run:
    """Fetches with their feed, called to be timed."""

    def __init__(self, fetches, feed):
        self.fetches, self.feed = fetches, feed

    def __call__(self):
        from dnnlib import tflib

        tflib.run(self.fetches, self.feed)


def _networks(resolution):
    from dnnlib import tflib
    from training.networks import DiscriminatorConfig, GeneratorConfig

    size = LATENT_SIZE // COMPONENTS
    config = GeneratorConfig(
        resolution=resolution, z_dim=size, w_dim=size, components_num=COMPONENTS, transformer=True, norm="layer", integration="mul",
        kmeans=True, use_pos=True, mapping_resnet=True, mapping_ltnt2ltnt=True, architecture="resnet", end_res=8,
    )  # fmt: skip
    return tflib.Network("G", "Generator", config), tflib.Network("D", "Discriminator", DiscriminatorConfig(resolution=resolution))


def _sampling(resolution, batch):
    import tensorflow.compat.v1 as tf

    generator, _ = _networks(resolution)
    z = tf.placeholder(tf.float32, [batch] + list(generator.input_shapes[0]))
    images = generator.get_output_for(z, tf.zeros([batch, 0]), truncation_psi=0.7).images
    return Run(images, {z: np.random.RandomState(0).standard_normal(z.shape.as_list())}), batch


def _training(resolution, batch):
    """One generator and one discriminator update, without the lazy regularizers: the step that every iteration runs."""
    import tensorflow.compat.v1 as tf

    from dnnlib import tflib
    from training.loss import discriminator_loss, generator_loss

    generator, discriminator = _networks(resolution)
    streams = tflib.RandomStreams(0, 0)
    z = tf.placeholder(tf.float32, [batch] + list(generator.input_shapes[0]))
    reals = tf.placeholder(tf.float32, [batch] + list(discriminator.input_shapes[0]))
    labels = tf.zeros([batch, 0])

    def fakes(name):
        out = generator.get_output_for(z, labels, training=True, streams=streams.child(name), noise_mode="random")
        return discriminator.get_output_for(out.images, labels, training=True, streams=streams.child(name)).scores

    real = discriminator.get_output_for(reals, labels, training=True, streams=streams).scores
    fetches = []
    for network, loss in (
        (generator, tf.reduce_mean(generator_loss("logistic_ns", fakes("g")))),
        (discriminator, tf.reduce_mean(discriminator_loss("logistic", fakes("d"), real))),
    ):
        optimizer = tf.train.AdamOptimizer(0.0, beta1=0.0, beta2=0.99, epsilon=1e-8)
        fetches.append(optimizer.minimize(loss, var_list=list(network.trainables.values())))
        tflib.run([variable.initializer for variable in optimizer.variables()])
    rng = np.random.RandomState(0)
    feed = {holder: rng.standard_normal(holder.shape.as_list()) for holder in (z, reals)}
    return Run(fetches, feed), batch


def multiply_adds(fetches, batch):
    """Multiply-adds of the convolutions and matrix products below fetches; unknown batch sizes count as `batch`."""
    pending = [getattr(fetch, "op", fetch) for fetch in (fetches if isinstance(fetches, list) else [fetches])]
    seen = set(pending)
    total = 0
    while pending:
        op = pending.pop()
        total += _op_multiply_adds(op, batch)
        for before in [tensor.op for tensor in op.inputs] + list(op.control_inputs):
            if before not in seen:
                seen.add(before)
                pending.append(before)
    return total


def _op_multiply_adds(op, batch):
    def size(tensor):
        return np.prod([batch if length is None else length for length in tensor.shape.as_list()])

    if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
        flag = "transpose_a" if op.type == "MatMul" else "adj_x"
        inner = op.inputs[0].shape.as_list()[-2 if op.get_attr(flag) else -1]
        return size(op.outputs[0]) * (batch if inner is None else inner)
    if op.type in ("Conv2D", "DepthwiseConv2dNative"):
        return size(op.outputs[0]) * np.prod(op.inputs[1].shape.as_list()[: 3 if op.type == "Conv2D" else 2])
    if op.type == "Conv2DBackpropInput":
        return size(op.inputs[2]) * np.prod(op.inputs[1].shape.as_list()[:3])
    if op.type == "DepthwiseConv2dNativeBackpropInput":
        return size(op.inputs[2]) * np.prod(op.inputs[1].shape.as_list()[:2])
    if op.type == "Conv2DBackpropFilter":
        return size(op.inputs[2]) * np.prod(op.outputs[0].shape.as_list()[:3])
    return 0


def ceilings():
    """GFLOP/s of a large matrix product and of a 3×3 convolution (8 × 64 × 64 × 128 → 128), in the session's TensorFlow."""
    import tensorflow.compat.v1 as tf

    from dnnlib import tflib

    rng = np.random.RandomState(0)
    with tflib.session_scope():
        a = tf.Variable(rng.standard_normal((2048, 2048)).astype(np.float32))
        x = tf.Variable(rng.standard_normal((8, 64, 64, 128)).astype(np.float32))
        w = tf.Variable(rng.standard_normal((3, 3, 128, 128)).astype(np.float32))
        tflib.run(tf.global_variables_initializer())
        runs = {"matrix": tf.matmul(a, a).op, "convolution": tf.nn.conv2d(x, w, strides=[1, 1, 1, 1], padding="SAME").op}
        work = {"matrix": 2 * 2048**3, "convolution": 2 * 8 * 64 * 64 * 128 * 128 * 9}
        rates = {}
        for name, op in runs.items():
            tflib.run(op)
            rates[name] = work[name] / min(_seconds(lambda op=op: tflib.run(op)) for _ in range(2 * ROUNDS)) / 1e9
        return rates


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(run_main(main))
