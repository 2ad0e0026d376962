"""What a training will need, before it starts: memory and time, from the networks' graphs and a short measurement."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import tflib
from dnnlib.log import format_time
from dnnlib.tflib import registry

# Forward passes per image and step, a backward pass counted as two (one for D under G, whose weights stand still): G's loss runs G and D
# forward and backward, D's loss runs G forward and D forward and backward on fakes and reals, and again on those without augmentation
# where they have to be consistent.
G_PASSES = 4
D_PASSES_UNDER_G = 2
D_PASSES_PER_BATCH = 3
PENALTY_PASSES = 6  # of a regularizer's network and image: forward, back to the input, and back through both to input and weights
STATE_COPIES = 5  # value, gradient, two Adam moments, accumulated gradient


class NetworkCost(NamedTuple):
    """One network at one image."""

    parameters: int          # trainable values
    multiply_adds: int       # of convolutions and matrix products in a forward pass
    half_multiply_adds: int  # those among them in a 16-bit type
    activation_bytes: int    # outputs of all operations of a forward pass


def _size(tensor):
    return int(np.prod(tensor.shape.as_list(), dtype=np.int64)) if tensor.shape.is_fully_defined() else 0


def multiply_adds(op):
    """Multiplications of one operation: 0 for what is not a convolution (or a gradient of one) or a matrix product."""
    if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
        transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        inner = op.inputs[0].shape.as_list()[-2 if transposed else -1]
        return _size(op.outputs[0]) * (inner or 0)
    convolution = re.fullmatch("(Conv2D|DepthwiseConv2dNative)(BackpropInput|BackpropFilter)?", op.type)
    if not convolution:
        return 0
    kind, gradient = convolution.groups()
    result = op.inputs[2] if gradient else op.outputs[0]  # of the convolution itself; its gradients multiply as often
    kernel = op.outputs[0] if gradient == "BackpropFilter" else op.inputs[1]
    return _size(result) * int(np.prod(kernel.shape.as_list()[: 3 if kind == "Conv2D" else 2]))


def network_cost(config, half=None):
    """Cost of one image through a network of this configuration (a graph of its own is built for it).

    Args:
        config: of the network.
        half: 16-bit type of mixed precision, or None.
    """
    with tflib.session_scope():
        network = tflib.Network("net", registry.find_for(config).name, config)
        known = len(tf.get_default_graph().get_operations())
        inputs = [tf.zeros([1, *shape]) for shape in network.input_shapes]
        network.get_output_for(*inputs, **({"half": half} if half else {}))
        added = tf.get_default_graph().get_operations()[known:]
        own = [op for op in added if op.type not in ("Const", "ReadVariableOp", "Identity", "Reshape")]
        return NetworkCost(
            parameters=network.parameter_count()[0],
            multiply_adds=sum(multiply_adds(op) for op in own),
            half_multiply_adds=sum(multiply_adds(op) for op in own if op.outputs and op.outputs[0].dtype.size == 2),
            activation_bytes=sum(_size(output) * output.dtype.size for op in own for output in op.outputs),
        )


def measured_speed(device, dtype=tf.float32):
    """Multiply-adds per second of a 3 x 3 convolution, forward and both gradients, on a device."""
    batch, size, channels, repeats = 8, 64, 128, 3
    with tflib.session_scope():
        with tf.device(device):
            scale = tf.placeholder(tf.float32, [])  # fed, so that nothing can be computed once and for all
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
        workers: processes that train together, each on as many devices.
    """
    half = tflib.half_type() if config.precision == "mixed" else None
    G, D = network_cost(generator, half), network_cost(discriminator, half)
    sizes, loss = config.schedule, config.loss
    weights = 4 * (STATE_COPIES * (G.parameters + D.parameters) + G.parameters)
    batches = 2 + (loss.bcr_real > 0) + (loss.bcr_fake > 0)  # that D's loss scores
    memory = weights + 2 * sizes.batch_gpu * (G.activation_bytes + batches * D.activation_bytes)  # the regularizers' is smaller
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
        f"forward pass    G {G.multiply_adds / 1e9:.3f}  D {D.multiply_adds / 1e9:.3f} billion multiply-adds an image",
        f"memory          about {memory / 2**30:.1f} GB on each device, {weights / 2**30:.1f} GB of it weights and optimizer; "
        "--batch-gpu lowers the rest",
        f"time            about {1000 / rate:.1f} s a kimg at best, {length} for {sizes.total_kimg:g} kimg",
    ]
