"""Speed and memory of training and sampling: python -m benchmarks.step [--cases sample-64,train-64] [--output results.json]

Every case runs in its own process and prints images/s, the arithmetic rate of its convolutions and matrix products, and that rate as a
fraction of two ceilings measured in the same process: a large float32 matrix product, and a 3×3 convolution of 128 channels at 64×64 in the
type that the case uses for convolutions. Peak memory is the process's largest resident size; start-up covers imports, graph building and
initial values; first_run is the first step.

A training step is the generator's and the discriminator's update in training.step, without the lazy regularizers. The case overhead-64
measures what these, gradient accumulation and the moving average add, as shares of the bare step at the same batch size; loop-64 measures
what the training loop does between two steps (data, statistics, status), as a share of the steps' time. Both use a quarter of the width.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from benchmarks import comma_list
from dnnlib import atomic_output, run_main
from dnnlib.util import usable_cores

COMPONENTS, LATENT_SIZE = 16, 512
ROUNDS = 3
LOOP_STEPS = 12


class Case(NamedTuple):
    """The measurement that one process makes."""

    kind: str                     # sample, train, overhead or loop
    resolution: int
    batch: int                    # images at once
    precision: str = "fp32"
    model: str = "GANformer"
    channels: tuple = (16384, 512)  # --channel-base, --channel-max


CASES = {
    "sample-64": Case("sample", 64, 8),
    "sample-256": Case("sample", 256, 4),
    "train-64": Case("train", 64, 8),
    "train-128": Case("train", 128, 4),
    "train-128-mixed": Case("train", 128, 4, precision="mixed"),
    "train-256": Case("train", 256, 4),
    "train-32-vitgan": Case("train", 32, 32, model="ViTGAN"),
    "overhead-64": Case("overhead", 64, 8, channels=(4096, 128)),
    "loop-64": Case("loop", 64, 8, channels=(4096, 128)),
}


def main(argv):
    """Run the cases one by one; print a line for each.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated list (default: all)")
    parser.add_argument("--gpus", default="cpu", help="GPU number, or cpu (default)")
    parser.add_argument("--output", help="JSON file for the results")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.case:
        print(json.dumps(measure(options.case, options.gpus)))
        return 0
    results = [_in_process(name, options.gpus) for name in comma_list("--cases", options.cases, CASES)]
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
    """Measure one case: dict of names and numbers (seconds, GFLOP/s, GB)."""
    case = CASES[name]
    start = time.perf_counter()
    import tensorflow.compat.v1 as tf

    from dnnlib import tflib
    from training.devices import open_devices
    from training.status import peak_memory_gb

    open_devices(gpus)
    machine = {"machine": f"{platform.processor() or platform.machine()}, {usable_cores()} cores", "tensorflow": tf.__version__}
    if case.kind in ("overhead", "loop"):
        with tflib.session_scope():
            return {"case": name, **(_overhead if case.kind == "overhead" else _loop)(case), **machine}
    with tflib.session_scope():
        run, flops = (_training if case.kind == "train" else _sampling)(case)
        startup = time.perf_counter() - start
        first = _seconds(run)
        seconds = min(_seconds(run) for _ in range(ROUNDS))
        memory = peak_memory_gb()
    rates = ceilings(tflib.half_type() if case.precision == "mixed" else tf.float32)
    rate = flops / seconds / 1e9
    return {
        "case": name,
        "images_per_second": round(case.batch / seconds, 3),
        "gflops": round(rate, 1),
        "of_matrix_product": round(rate / rates["matrix"], 3),
        "of_convolution": round(rate / rates["convolution"], 3),
        "matrix_gflops": round(rates["matrix"], 1),
        "convolution_gflops": round(rates["convolution"], 1),
        "startup_seconds": round(startup, 1),
        "first_run_seconds": round(first, 1),
        "peak_memory_gb": round(memory, 2),
        **machine,
    }


def _networks(case):
    from dnnlib import tflib
    from training.networks import DiscriminatorConfig, GeneratorConfig
    from training.networks.vitgan.config import ViTGANDiscriminatorConfig, ViTGANGeneratorConfig

    if case.model == "ViTGAN":
        G = tflib.Network("G", ViTGANGeneratorConfig(resolution=case.resolution))
        return G, tflib.Network("D", ViTGANDiscriminatorConfig(resolution=case.resolution))
    size = LATENT_SIZE // COMPONENTS
    shared = {"resolution": case.resolution, "channel_base": case.channels[0], "channel_max": case.channels[1]}
    config = GeneratorConfig(
        **shared, z_dim=size, w_dim=size, components_num=COMPONENTS, transformer=True, norm="layer", integration="mul", kmeans=True,
        use_pos=True, mapping_resnet=True, mapping_ltnt2ltnt=True, architecture="resnet", end_res=8,
    )  # fmt: skip
    return tflib.Network("G", config), tflib.Network("D", DiscriminatorConfig(**shared))


def _sampling(case):
    """(function that generates one batch of images, its floating-point operations)."""
    import tensorflow.compat.v1 as tf

    from dnnlib import tflib

    generator, _ = _networks(case)
    before = set(tf.get_default_graph().get_operations())
    z = tf.placeholder(tf.float32, [case.batch] + list(generator.input_shapes[0]))
    images = generator.get_output_for(z, tf.zeros([case.batch, 0]), truncation_psi=0.7).images
    feed = {z: np.random.RandomState(0).standard_normal(z.shape.as_list())}
    return lambda: tflib.run(images, feed), _flops_since(before)


def _flops_since(before):
    """Floating-point operations of the graph's convolutions and matrix products, except those in `before`."""
    import tensorflow.compat.v1 as tf

    from training.estimate import multiply_adds

    return 2 * sum(multiply_adds(op) for op in set(tf.get_default_graph().get_operations()) - before)


def _training_step(case, networks, rounds=1, **loss):
    from training.config import AugmentConfig, LossConfig, ScheduleConfig, TrainingConfig
    from training.step import TrainingStep

    schedule = ScheduleConfig(batch_size=case.batch * rounds, batch_gpu=case.batch)
    augment = AugmentConfig("diffaug" if case.model == "ViTGAN" else "none")
    config = TrainingConfig(loss=LossConfig(**loss), augment=augment, schedule=schedule, precision=case.precision)
    return TrainingStep(*networks, config, np.zeros([1, 0], np.float32), [_device()])


def _device():
    from dnnlib import tflib

    return tflib.devices()[0]


def _batch(case, rounds=1):
    from training.step import Batch

    images = case.batch * rounds
    reals = np.random.RandomState(0).randint(256, size=[images, 3, case.resolution, case.resolution]).astype(np.uint8)
    return Batch(0, reals, np.zeros([images, 0], np.float32))


def _training(case):
    """(function that runs one step, its floating-point operations). The moving average is left out."""
    import tensorflow.compat.v1 as tf

    G, D = _networks(case)
    before = set(tf.get_default_graph().get_operations())
    consistent = {"bcr_real": 10.0, "bcr_fake": 10.0} if case.model == "ViTGAN" else {}
    step = _training_step(case, (G, D, G), d_reg="non", **consistent)
    flops = _flops_since(before)
    stages = [stage for stage in step.stages if stage.name != "moving_average"]
    batch = _batch(case)
    return lambda: [stage.run(batch) for stage in stages], flops


def _overhead(case):
    """The cost of lazy regularization, accumulation and the moving average, as shares of the bare step at the same batch size."""
    G, D = _networks(case)
    networks = (G, D, G.clone("Gs"))
    bare = {stage.name: _best(stage, _batch(case)) for stage in _training_step(case, networks, d_reg="non").stages}
    whole = {}
    for stage in _training_step(case, networks, rounds=2).stages:
        whole[stage.name] = _best(stage, _batch(case, rounds=2)) / stage.interval
    step = 2 * (bare["generator"] + bare["discriminator"])
    parts = {"accumulation": whole["generator"] + whole["discriminator"] - step, "regularizer": whole["r1"],
             "moving_average": whole["moving_average"]}  # fmt: skip
    shares = {f"{name}_share": round(seconds / step, 4) for name, seconds in parts.items()}
    return {"bare_step_seconds": round(step, 3), **shares, "together_share": round(sum(parts.values()) / step, 4)}


def _best(stage, batch):
    stage.run(batch)
    return min(_seconds(lambda: stage.run(batch)) for _ in range(ROUNDS))


def _loop(case):
    """Time between the steps of a training loop, as a share of the time in the steps."""
    from dataset_tool import cli
    from training.config import OutputConfig, ScheduleConfig, TrainingConfig
    from training.dataset import Dataset
    from training.training_loop import TrainingLoop

    G, D = _networks(case)
    networks = {"G": G, "D": D, "Gs": G.clone("Gs")}
    kimg = LOOP_STEPS * case.batch / 1000
    schedule = ScheduleConfig(batch_size=case.batch, batch_gpu=case.batch, total_kimg=kimg, tick_kimg=kimg / 2, snapshot_ticks=1000)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        words = ["--scenes", "--data-dir", folder, "--resolution", str(case.resolution), "--max-images", "256", "--labels", "none"]
        cli.main(words)
        dataset = Dataset(os.path.join(folder, "scenes"))
        loop = TrainingLoop(folder, networks, TrainingConfig(schedule=schedule), OutputConfig(), dataset, [_device()], {})
        step = loop.step.run

        def timed(*arguments):
            times.append(time.perf_counter())
            statistics = step(*arguments)
            times.append(time.perf_counter())
            return statistics

        loop.step.run = timed
        loop.snapshot = lambda evaluate: None
        loop.run()
    inside = sum(end - start for start, end in zip(times[2::2], times[3::2]))
    between = sum(start - end for end, start in zip(times[1::2], times[2::2]))
    return {"steps_seconds": round(inside, 2), "between_seconds": round(between, 4), "between_share": round(between / inside, 4)}


def ceilings(convolved):
    """GFLOP/s of a large float32 matrix product and of a 3×3 convolution (8 × 64 × 64 × 128 → 128) in the type `convolved`."""
    import tensorflow.compat.v1 as tf

    from dnnlib import tflib

    rng = np.random.RandomState(0)
    with tflib.session_scope():
        a = tf.Variable(rng.standard_normal((2048, 2048)).astype(np.float32))
        x = tf.Variable(tf.cast(rng.standard_normal((8, 64, 64, 128)), convolved))
        w = tf.Variable(tf.cast(rng.standard_normal((3, 3, 128, 128)), convolved))
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
