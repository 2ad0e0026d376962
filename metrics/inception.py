"""The Inception network of 2015-12-05 from its frozen graph, read as data.

A GraphDef is a program. Only operations on an allow-list are accepted, function libraries are refused, and everything that is not
between the batch of images and the pool features is removed before the import: the JPEG decoder, which the batch replaces, and the
tail, whose reshape is fixed to one image. The graph itself resizes to 299×299 by TensorFlow 1's rule and computes (x − 128) / 128.
"""

import os

import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from dnnlib import UserError, tflib
from metrics.replicas import Replicas
from metrics.weights import WEIGHT_FILES

INPUT = "ExpandDims"
POOL = "pool_3"
CLASSIFIER = "softmax/weights"
INPUT_SIZE = 299
ALLOWED = frozenset(
    ["Const", "DecodeJpeg", "Cast", "ExpandDims", "ResizeBilinear", "Sub", "Mul", "Conv2D", "BatchNormWithGlobalNormalization"]
    + ["CheckNumerics", "Identity", "Relu", "MaxPool", "AvgPool", "Concat", "ConcatV2", "Reshape", "MatMul", "BiasAdd", "Add", "Softmax"]
)
# From this producer version on, both TensorFlows refuse BatchNormWithGlobalNormalization; the published file is older.
FIRST_REFUSED_PRODUCER = 9
PUBLISHED_BLOCKS = 94
PUBLISHED_CLASSIFIER = (2048, 1008)


def read_graph(path):
    """Read and check a frozen Inception graph, and cut out the part that is used.

    Args:
        path: of the .pb file.

    Returns:
        (GraphDef from after INPUT up to POOL and CLASSIFIER, classifier weights float32 [D, classes]).

    Raises:
        UserError: one line saying what is wrong with the file.
    """
    graph_def = tf.GraphDef()
    try:
        with open(path, "rb") as file:
            graph_def.ParseFromString(file.read())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except DecodeError:
        graph_def.Clear()
    if not graph_def.node:  # some parsers skip what they do not know
        raise UserError(f"{path}: not a TensorFlow graph, or truncated")
    _check_program(path, graph_def)
    cut = _cut(path, graph_def)
    classifier = next(node for node in cut.node if node.name == CLASSIFIER)
    if classifier.op != "Const":
        raise UserError(f"{path}: {CLASSIFIER} is an operation {classifier.op}, accepted: Const")
    weights = tf.make_ndarray(classifier.attr["value"].tensor)
    if weights.ndim != 2:
        raise UserError(f"{path}: {CLASSIFIER} has shape {list(weights.shape)}, accepted: two axes")
    blocks = sum(node.name.endswith("/conv2d_params") for node in cut.node)
    if os.path.getsize(path) == WEIGHT_FILES["inception"].size and (blocks, weights.shape) != (PUBLISHED_BLOCKS, PUBLISHED_CLASSIFIER):
        raise UserError(f"{path}: {blocks} convolutions, classifier {list(weights.shape)}; the published file of this size has others")
    return cut, weights


def _check_program(path, graph_def):
    forbidden = sorted({node.op for node in graph_def.node} - ALLOWED)
    if forbidden:
        raise UserError(f"{path}: forbidden operations {', '.join(forbidden)}; this is not the Inception graph, or it was tampered with")
    if graph_def.library.function:
        raise UserError(f"{path}: it contains functions; this is not the Inception graph, or it was tampered with")
    producer = graph_def.versions.producer
    if producer >= FIRST_REFUSED_PRODUCER:
        raise UserError(f"{path}: graph version (producer) {producer}, accepted below {FIRST_REFUSED_PRODUCER}: the file was rewritten")


def _cut(path, graph_def):
    """The nodes that POOL and CLASSIFIER need, without INPUT and what it needs, and without shapes that would fix the batch to 1."""
    nodes = {node.name: node for node in graph_def.node}
    wanted, waiting = set(), [POOL, CLASSIFIER]
    while waiting:
        name = waiting.pop()
        if name in wanted or name == INPUT:
            continue
        if name not in nodes:
            raise UserError(f"{path}: node {name} is missing; this is not the Inception graph, or it is truncated")
        wanted.add(name)
        waiting.extend(source.lstrip("^").split(":")[0] for source in nodes[name].input)
    if not any(source.split(":")[0] == INPUT for name in wanted for source in nodes[name].input):
        raise UserError(f"{path}: node {INPUT} does not feed {POOL}; this is not the Inception graph")
    cut = tf.GraphDef()
    cut.versions.CopyFrom(graph_def.versions)
    for node in graph_def.node:
        if node.name in wanted:
            cut.node.add().CopyFrom(node)
            cut.node[-1].attr.pop("_output_shapes", None)
    return cut


def _shapes(classifier):
    features, classes = classifier.shape
    return {"features": (features,), "logits": (classes,)}


class Inception:
    """Pool features and classifier logits of batches of any size, on all devices of the session."""

    input_size = INPUT_SIZE

    @staticmethod
    def check(path):
        """Check a file.

        Returns:
            The `shapes` of its network.

        Raises:
            UserError: see `read_graph`.
        """
        return _shapes(read_graph(path)[1])

    def __init__(self, path, floating):
        """
        Args:
            path: of the frozen graph.
            floating: images are passed as float32 and already resized, instead of as uint8 of any size.

        Raises:
            UserError: see `read_graph`.
        """
        graph_def, weights = read_graph(path)
        self.shapes = _shapes(weights)
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._session = tflib.get_session()
            try:
                self._replicas = Replicas(self._session, [self._build(graph_def, device, floating) for device in tflib.devices()])
            except ValueError as error:
                raise UserError(f"{path}: cannot be imported: {str(error).splitlines()[0]}") from None

    def _build(self, graph_def, device, floating):
        with tf.device(device):
            images = tf.placeholder(tf.float32 if floating else tf.uint8, [None, None, None, 3])
            pool, weights = tf.import_graph_def(
                graph_def, input_map={f"{INPUT}:0": tf.cast(images, tf.float32)}, return_elements=[f"{POOL}:0", f"{CLASSIFIER}:0"], name=""
            )
            width = self.shapes["features"][0]
            if pool.shape.as_list()[-1] != width:
                raise ValueError(f"{POOL} has {pool.shape.as_list()[-1]} features, {CLASSIFIER} takes {width}")
            features = tf.reshape(pool, [-1, width])
            return images, {"features": features, "logits": tf.matmul(features, weights)}

    def __call__(self, images):
        """Evaluate the network.

        Args:
            images: [n, H, W, 3], 0..255, float32 if `floating` was given, else uint8.

        Returns:
            Dict: "features" float32 [n, D], "logits" float32 [n, classes], the latter without the classifier's bias.
        """
        return self._replicas(images)

    def close(self):
        """Free the session."""
        with self._graph.as_default():
            tflib.close_session()
