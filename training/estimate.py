"""Estimate of the memory and time that a training will need, from the networks' graphs and a short measurement."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from dnnlib.log import format_time
from training import schedule
from training.step import TrainingStep

# Forward passes per image and step; a backward pass counts as two (one for D in G's loss, where D's weights get no gradients). G's loss
# runs G and D forward and backward; D's loss runs G forward, and D forward and backward on fakes and reals (once more on their
# unaugmented versions with consistency regularization).
G_PASSES = 4
D_PASSES_UNDER_G = 2
D_PASSES_PER_BATCH = 3
PENALTY_PASSES = 6  # of a regularizer's network and image: forward, back to the input, and back through both to input and weights
# Ratio of measured peaks to summed tensors: kernels need workspace, and operations may run in another order. Measured growth per image
# over the summed one, at 32 px on CPUs: StyleGAN2 1.15, GANformer 1.12, ViTGAN 1.37, much the same in both TensorFlows.
PEAK_MARGIN = 1.4

# Operations whose output shares its input's memory, or (for variables) the variable's own.
SHARING = {"Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient", "Switch", "Merge", "ReadVariableOp"}


class NetworkCost(NamedTuple):
    """Cost of one image in one network."""

    parameters: int          # trainable values
    multiply_adds: int       # of convolutions and matrix products in a forward pass
    half_multiply_adds: int  # the part of them in a 16-bit type


class Memory(NamedTuple):
    """Peak memory of a training on one device in bytes, without TensorFlow's own overhead."""

    variables: int  # weights, their moving average, optimizers
    tensors: int    # activations and gradients of --batch-gpu images at the peak of the costliest loss, times PEAK_MARGIN


def _size(tensor):
    return tensor.shape.num_elements() or 0  # None where a size is not known


def multiply_adds(op):
    """Multiply-adds of one operation: 0 unless it is a convolution, a gradient of one, or a matrix product."""
    if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
        transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        inner = op.inputs[0].shape.as_list()[-2 if transposed else -1]
        return _size(op.outputs[0]) * (inner or 0)
    convolution = re.fullmatch("(Conv2D|DepthwiseConv2dNative)(BackpropInput|BackpropFilter)?", op.type)
    if not convolution:
        return 0
    kind, gradient = convolution.groups()
    result = op.inputs[2] if gradient else op.outputs[0]  # of the forward convolution: its gradients cost the same
    kernel = op.outputs[0] if gradient == "BackpropFilter" else op.inputs[1]
    return _size(result) * int(np.prod(kernel.shape.as_list()[: 3 if kind == "Conv2D" else 2]))


def network_cost(config, half=None):
    """Cost of one image in a network of this configuration, from a graph built for the purpose.

    Args:
        config: of the network.
        half: 16-bit type of mixed precision, or None.
    """
    with tflib.session_scope():
        network = tflib.Network("net", config, seed=None)
        known = len(tf.get_default_graph().get_operations())
        inputs = [tf.zeros([1, *shape]) for shape in network.input_shapes]
        network.get_output_for(*inputs, **({"half": half} if half else {}))
        costs = {op: multiply_adds(op) for op in tf.get_default_graph().get_operations()[known:]}
        return NetworkCost(
            parameters=network.parameter_count()[0],
            multiply_adds=sum(costs.values()),
            half_multiply_adds=sum(cost for op, cost in costs.items() if cost and op.outputs[0].dtype.size == 2),
        )


def _operations(fetches):
    """The operations that an evaluation of `fetches` (tensors and operations) runs, in the order they were built."""
    needed, open_ends = set(), [getattr(fetch, "op", fetch) for fetch in fetches]
    while open_ends:
        op = open_ends.pop()
        if op not in needed:
            needed.add(op)
            open_ends += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
    return [op for op in fetches[0].graph.get_operations() if op in needed]


def peak_bytes(fetches):
    """Largest number of bytes of tensors that are alive at once in an evaluation of `fetches`.

    Assumes that operations run one at a time in the order they were built, and that a tensor lives until the last operation that reads
    it. So of a forward pass, what the backward pass reads stays alive; gradient penalties need no special case.
    """
    order = _operations(fetches)
    owner, first, last = {}, {}, {}  # by name of a tensor: the one whose memory it shares; of those: positions of its life
    for position, op in enumerate(order):
        for output in op.outputs:
            shared = op.type in SHARING and op.inputs
            owner[output.name] = owner.get(op.inputs[0].name, op.inputs[0].name) if shared else output.name
            if not shared:
                first[output.name] = position
    for position, op in enumerate(order):
        for tensor in (*op.inputs, *op.outputs):
            last[owner[tensor.name]] = max(position, last.get(owner[tensor.name], 0))
    changes = np.zeros(len(order) + 1, np.int64)
    for op in order:
        for output in op.outputs:
            if output.name in first and output.dtype not in (tf.resource, tf.variant, tf.string):
                size = _size(output) * output.dtype.size
                changes[first[output.name]] += size
                changes[last[output.name] + 1] -= size
    return int(np.cumsum(changes).max())


def memory(generator, discriminator, config, device, parts=1):
    """Memory of the first device, from the graph of a training step that is built but not run.

    Args:
        generator, discriminator: configurations of the networks.
        config: TrainingConfig.
        device: device string.
        parts: number of devices, over all workers, that share the batch.
    """
    sizes = config.schedule
    rounds = schedule.rounds_per_step(sizes.batch_size, sizes.batch_gpu, parts)
    own_share = replace(config, schedule=replace(sizes, batch_size=rounds * sizes.batch_gpu))
    with tflib.session_scope():
        G, D = [tflib.Network(name, own) for name, own in (("G", generator), ("D", discriminator))]
        labels = np.zeros([1, *G.input_shapes[1]], np.float32)
        step = TrainingStep(G, D, G.clone("Gs"), own_share, labels, [device])
        return Memory(
            variables=sum(_size(variable) * variable.dtype.size for variable in tf.global_variables()),
            tensors=int(PEAK_MARGIN * max(peak_bytes(fetches) for fetches in step.fetches.values())),
        )


def measured_speed(device, dtype=tf.float32):
    """Multiply-adds per second of a 3 x 3 convolution, forward and both gradients, on a device."""
    batch, size, channels, repeats = 8, 64, 128, 3
    with tflib.session_scope():
        with tf.device(device):
            scale = tf.placeholder(tf.float32, [])  # fed, so that TensorFlow cannot fold the work into constants
            x, w = [tf.cast(tf.fill(shape, scale), dtype) for shape in ([batch, size, size, channels], [3, 3, channels, channels])]
            y = tf.nn.conv2d(x, w, strides=[1, 1, 1, 1], padding="SAME")
            work = [tf.reduce_sum(gradient) for gradient in tf.gradients(tf.reduce_sum(y * y), [x, w])]
        tflib.run(work, {scale: 0.5})
        begin = time.time()
        for _ in range(repeats):
            tflib.run(work, {scale: 0.5})
        return 3 * repeats * batch * size * size * 9 * channels * channels / (time.time() - begin)


def lines(generator, discriminator, config, devices, workers=1):
    """The estimate as text.

    Args:
        generator, discriminator: configurations of the networks.
        config: TrainingConfig.
        devices: list of device strings.
        workers: number of processes that train together, each with this many devices.
    """
    half = tflib.half_type() if config.precision == "mixed" else None
    G, D = network_cost(generator, half), network_cost(discriminator, half)
    sizes, loss = config.schedule, config.loss
    batches = 2 + (loss.bcr_real > 0) + (loss.bcr_fake > 0)  # scored in D's loss
    needed = memory(generator, discriminator, config, devices[0], workers * len(devices))
    g_passes = G_PASSES + (PENALTY_PASSES / loss.g_reg_interval / 2 if loss.pathreg else 0)  # on half a batch
    d_passes = D_PASSES_UNDER_G + batches * D_PASSES_PER_BATCH + (PENALTY_PASSES / loss.d_reg_interval if loss.d_reg != "non" else 0)
    full_speed = measured_speed(devices[0])
    half_speed = measured_speed(devices[0], half) if half else full_speed
    seconds = sum(
        passes * ((cost.multiply_adds - cost.half_multiply_adds) / full_speed + cost.half_multiply_adds / half_speed)
        for passes, cost in ((g_passes, G), (d_passes, D))
    )
    rate = workers * len(devices) / seconds
    length = format_time(sizes.total_kimg * 1000 / rate)
    return [
        f"parameters      G {G.parameters:,}  D {D.parameters:,}",
        f"forward pass    G {G.multiply_adds / 1e9:.3f}  D {D.multiply_adds / 1e9:.3f} billion multiply-adds per image",
        f"memory          about {sum(needed) / 2**30:.1f} GB on each device at the peak, plus TensorFlow's own: "
        f"{needed.variables / 2**30:.1f} GB weights and optimizers, {needed.tensors / 2**30:.1f} GB activations of {sizes.batch_gpu} "
        "images per device (--batch-gpu)",
        f"time            about {1000 / rate:.1f} s per kimg at best, {length} for {sizes.total_kimg:g} kimg",
    ]
