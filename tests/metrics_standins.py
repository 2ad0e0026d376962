"""Small stand-ins: a NumPy dataset and generator with the interface of the real ones, and feature networks in the published format."""

import collections
import os
import types

import numpy as np
import tensorflow.compat.v1 as tf

from benchmarks.metrics import vgg16_standin

Outputs = collections.namedtuple("Outputs", "images maps ws")


class ArrayDataset:
    """A dataset of given uint8 images [N, C, H, W], padded squares."""

    def __init__(self, images, labels=None, ratio=1.0, name="arrays"):
        self.images = images
        self.name = name
        self.count = len(images)
        self.shape = images.shape[1:]
        self.resolution = images.shape[-1]
        self.channels = images.shape[1]
        self.ratio = ratio
        self.labels = np.zeros([len(images), 0], np.float32) if labels is None else labels
        self.fingerprint = f"{int(images.sum()):x}-{images.shape}"

    def read(self, indices):
        return self.images[np.asarray(indices)]


class BlobGenerator:
    """Images [C, size, size] that are smooth functions of z [K, z_dim], the label and the noise seed; ws are 2·z."""

    def __init__(self, size=32, channels=3, latents=(2, 4), classes=0, contrast=1.0, ratio=None):
        self.input_shapes = [list(latents), [classes]]
        self.config = types.SimpleNamespace(resolution=size, num_channels=channels, crop_ratio=ratio)
        self.contrast = contrast
        stream = np.random.RandomState(99)
        rows = np.linspace(-1, 1, size)
        waves = [np.cos(3 * f * rows[:, None] + g * rows) for f in (0.5, 1, 2) for g in (-2, 0.3, 1)]
        self.patterns = np.stack(waves).astype(np.float32)  # [9, size, size]
        self.mixing = (stream.randn(latents[0] * latents[1], channels * 9) / 6).astype(np.float32)
        self.channels = channels
        self.batch_sizes = []

    def get_values(self):
        return {"mixing": self.mixing, "contrast": np.float32(self.contrast)}

    def run(self, z, labels=None, batch_size=8, truncation_psi=0.7, noise_mode="const", seeds=None, devices=(None,), **options):
        assert truncation_psi is None
        ws = self.run_part("mapping", z, labels, truncation_psi=truncation_psi).ws
        images = self.run_part("synthesis", ws, batch_size=batch_size, noise_mode=noise_mode, seeds=seeds).images
        if labels is not None and labels.shape[1]:
            images = images + 0.1 * labels.argmax(axis=1)[:, None, None, None].astype(np.float32)
        return Outputs(images, None, None)

    def run_part(self, part, inputs, labels=None, batch_size=8, truncation_psi=0.7, noise_mode="const", seeds=None, devices=(None,)):
        self.batch_sizes.append(batch_size)
        if part == "mapping":
            assert truncation_psi is None
            return Outputs(None, None, np.float32(2) * inputs)
        weights = np.stack([row.reshape(-1) @ self.mixing for row in inputs / 2]).reshape(len(inputs), self.channels, 9)
        images = self.contrast * np.tensordot(weights, self.patterns, 1)
        if noise_mode == "random":
            noise = np.stack([np.random.RandomState(int(seed)).randn(*images.shape[1:]) for seed in seeds])
            images = images + 0.02 * noise
        return Outputs(images.astype(np.float32), None, None)


def _tf1_positions(size, target):
    """Lower and upper source index and the weight of the upper one for each target pixel, all in float32 as in the op."""
    source = np.arange(target, dtype=np.float32) * (np.float32(size) / np.float32(target))
    lower = np.floor(source).astype(np.int64)
    return lower, np.minimum(lower + 1, size - 1), source - lower.astype(np.float32)


def tf1_bilinear(images, height, width):
    """TensorFlow 1's bilinear resize (align_corners=False), bit-identical to the op in the feature networks' graphs.

    Args:
        images: [N, H, W, C], uint8 or float32.
        height, width: target size in pixels.

    Returns:
        float32 [N, height, width, C].
    """
    images = np.asarray(images, np.float32)
    top, bottom, down = _tf1_positions(images.shape[1], height)
    left, right, across = _tf1_positions(images.shape[2], width)
    rows = images[:, :, left] + (images[:, :, right] - images[:, :, left]) * across[:, None]  # [N, H, width, C]
    return rows[:, top] + (rows[:, bottom] - rows[:, top]) * down[:, None, None]  # [N, height, width, C]


def _constant(graph_def, name, value):
    node = graph_def.node.add(name=name, op="Const")
    tensor = tf.make_tensor_proto(value)
    node.attr["value"].tensor.CopyFrom(tensor)
    node.attr["dtype"].type = tensor.dtype


def _operation(graph_def, name, op, inputs, dtype=tf.float32, **attributes):
    node = graph_def.node.add(name=name, op=op, input=inputs)
    if dtype is not None:
        node.attr["T"].type = dtype.as_datatype_enum
    for key, value in attributes.items():
        kind = {bool: "b", int: "i", float: "f", bytes: "s"}.get(type(value))
        if kind:
            setattr(node.attr[key], kind, value)
        elif isinstance(value, tf.DType):
            node.attr[key].type = value.as_datatype_enum
        else:
            node.attr[key].list.i.extend(value)
    return node


def _convolution_block(graph_def, scope, source, kernel, stride, padding, stream):
    """conv2d, batch normalisation, numerics check, control dependency, ReLU: one block of the old Inception graphs."""
    channels = kernel.shape[-1]
    _constant(graph_def, f"{scope}/conv2d_params", kernel)
    strides = [1, stride, stride, 1]
    _operation(graph_def, f"{scope}/Conv2D", "Conv2D", [source, f"{scope}/conv2d_params"], strides=strides, padding=padding)
    values = {
        "moving_mean": 0.1 * stream.randn(channels),
        "moving_variance": 0.5 + stream.rand(channels),
        "beta": 0.3 + 0.1 * stream.randn(channels),
        "gamma": 0.5 + stream.rand(channels),
    }
    for name, value in values.items():
        _constant(graph_def, f"{scope}/batchnorm/{name}", value.astype(np.float32))
    inputs = [f"{scope}/Conv2D"] + [f"{scope}/batchnorm/{name}" for name in values]
    normalised = f"{scope}/batchnorm"
    options = {"variance_epsilon": 0.001, "scale_after_normalization": True}
    _operation(graph_def, normalised, "BatchNormWithGlobalNormalization", inputs, **options)
    _operation(graph_def, f"{scope}/CheckNumerics", "CheckNumerics", [normalised], message=b"check")
    _operation(graph_def, f"{scope}/control_dependency", "Identity", [normalised, f"^{scope}/CheckNumerics"])
    _operation(graph_def, scope, "Relu", [f"{scope}/control_dependency"])
    return dict(values, kernel=kernel)


def inception_standin(features=32, classes=10, producer=8, tail_batch=-1, output_shapes=False, seed=0):
    """A small GraphDef with random weights in the form of the Inception graph of 2015.

    Args:
        features: D, even; 2048 in the real one.
        classes: 1008 in the real one.
        producer: graph version.
        tail_batch: batch size that the tail's reshape is fixed to (-1: any).
        output_shapes: give two nodes the attribute that pins the batch to 1.
        seed: for the weights.

    Returns:
        (tf.GraphDef, dict of the weights: conv, mixed_a, mixed_b as in `inception_numpy`, classifier).
    """
    stream = np.random.RandomState(seed)
    graph_def = tf.GraphDef()
    graph_def.versions.producer = producer
    _constant(graph_def, "DecodeJpeg/contents", b"")
    _operation(graph_def, "DecodeJpeg", "DecodeJpeg", ["DecodeJpeg/contents"], dtype=None, channels=3)
    _operation(graph_def, "Cast", "Cast", ["DecodeJpeg"], dtype=None, SrcT=tf.uint8, DstT=tf.float32)
    _constant(graph_def, "ExpandDims/dim", np.int32(0))
    _operation(graph_def, "ExpandDims", "ExpandDims", ["Cast", "ExpandDims/dim"], Tdim=tf.int32)
    _constant(graph_def, "ResizeBilinear/size", np.array([299, 299], np.int32))
    _operation(graph_def, "ResizeBilinear", "ResizeBilinear", ["ExpandDims", "ResizeBilinear/size"])
    for name, op, source, number in (("Sub", "Sub", "ResizeBilinear", 128), ("Mul", "Mul", "Sub", 0.0078125)):
        _constant(graph_def, f"{name}/y", np.float32(number))
        _operation(graph_def, name, op, [source, f"{name}/y"])
    weights = {}
    kernels = {
        "conv": (stream.randn(3, 3, 3, 8) / 3).astype(np.float32),
        "mixed_a": (stream.randn(1, 1, 8, features // 2) / 2).astype(np.float32),
        "mixed_b": (stream.randn(1, 1, 8, features // 2) / 2).astype(np.float32),
    }
    weights["conv"] = _convolution_block(graph_def, "conv", "Mul", kernels["conv"], 2, b"VALID", stream)
    window = {"ksize": [1, 3, 3, 1], "strides": [1, 19, 19, 1], "padding": b"VALID"}
    _operation(graph_def, "pool", "MaxPool", ["conv"], **window)
    for scope in ("mixed_a", "mixed_b"):
        weights[scope] = _convolution_block(graph_def, scope, "pool", kernels[scope], 1, b"SAME", stream)
    _constant(graph_def, "mixed_10/join/concat_dim", np.int32(3))
    _operation(graph_def, "mixed_10/join", "Concat", ["mixed_10/join/concat_dim", "mixed_a", "mixed_b"], N=2)
    _operation(graph_def, "pool_3", "AvgPool", ["mixed_10/join"], ksize=[1, 8, 8, 1], strides=[1, 8, 8, 1], padding=b"VALID")
    _constant(graph_def, "pool_3/_reshape/shape", np.array([tail_batch, features], np.int32))
    _operation(graph_def, "pool_3/_reshape", "Reshape", ["pool_3", "pool_3/_reshape/shape"], Tshape=tf.int32)
    weights["classifier"] = stream.randn(features, classes).astype(np.float32)
    _constant(graph_def, "softmax/weights", weights["classifier"])
    _constant(graph_def, "softmax/biases", stream.randn(classes).astype(np.float32))
    _operation(graph_def, "softmax/logits/MatMul", "MatMul", ["pool_3/_reshape", "softmax/weights"])
    _operation(graph_def, "softmax/logits", "BiasAdd", ["softmax/logits/MatMul", "softmax/biases"])
    _operation(graph_def, "softmax", "Softmax", ["softmax/logits"])
    if output_shapes:
        for node in graph_def.node:
            if node.name in ("pool", "pool_3"):
                side, channels = (8, 8) if node.name == "pool" else (1, features)
                node.attr["_output_shapes"].list.shape.add().CopyFrom(tf.TensorShape([1, side, side, channels]).as_proto())
    return graph_def, weights


def write_features_dir(folder, **inception_options):
    """A --features-dir with both stand-in networks under the published files' names."""
    graph_def, _ = inception_standin(**inception_options)
    with open(os.path.join(folder, "classify_image_graph_def.pb"), "wb") as file:
        file.write(graph_def.SerializeToString())
    vgg16_standin(os.path.join(folder, "vgg16_weights_tf_dim_ordering_tf_kernels.h5"))
    return str(folder)
