"""VGG-16 (Simonyan & Zisserman 2015) with the weights of the Keras .h5 file, which h5py reads as arrays, without Keras.

Precision and recall use the second fully connected layer after its ReLU, as Kynkäänniemi et al. 2019 do. Their network is a program in
a pickle with its own weights, so numbers computed here follow their protocol but do not equal theirs to the last digit.
"""

import contextlib

import h5py
import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import UserError, tflib
from metrics.replicas import Replicas

CAFFE_MEAN = (103.939, 116.779, 123.68)  # of blue, green, red, as used in training these weights
CONVOLUTIONS = 13
POOLS = 5


@contextlib.contextmanager
def _opened(path):
    """Context with the layers of a Keras VGG-16 file as `read_layers` returns them, but with h5py's arrays, which are not yet read."""
    try:
        with h5py.File(path, "r") as file:
            layers = [_find_layer(file, _text(name)) for name in file.attrs["layer_names"]]
            yield _checked(path, [layer for layer in layers if layer])
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not a Keras weights file, or truncated ({str(error).splitlines()[0]})") from None


def read_layers(path):
    """Layers of a Keras VGG-16 file, up to the second fully connected one.

    Args:
        path: of the .h5 file.

    Returns:
        List of (kind, kernel, bias): kind "conv" (kernel HWIO), "pool" (no arrays) or "dense" (kernel [in, out]).

    Raises:
        UserError: one line saying what is wrong with the file.
    """
    with _opened(path) as layers:
        return [(kind, *(None if array is None else np.asarray(array, np.float32) for array in arrays)) for kind, *arrays in layers]


def _text(name):
    return name.decode() if isinstance(name, bytes) else name


def _find_layer(file, name):
    group = file[name]
    arrays = [group[_text(weight)] for weight in group.attrs["weight_names"]]
    if not arrays:
        return ("pool", None, None) if "pool" in name else None
    if len(arrays) != 2:
        raise UserError(f"{file.filename}: layer {name} has {len(arrays)} arrays, accepted: 2 (kernel and bias)")
    return ("conv" if len(arrays[0].shape) == 4 else "dense", *arrays)


def _checked(path, layers):
    """The layers up to the second fully connected one. UserError if they are not those of VGG-16."""
    kinds = [kind for kind, _, _ in layers]
    if kinds.count("conv") != CONVOLUTIONS or kinds.count("pool") != POOLS or kinds.count("dense") < 2:
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("conv", "pool", "dense"))
        raise UserError(f"{path}: {counts} layers, accepted: {CONVOLUTIONS} conv, {POOLS} pool, 3 dense (VGG-16 with its top)")
    second = [index for index, kind in enumerate(kinds) if kind == "dense"][1]
    channels = 3
    for number, (kind, kernel, bias) in enumerate(layers[: second + 1]):
        if kind == "conv" and kernel.shape[:3] != (3, 3, channels):
            raise UserError(f"{path}: layer {number} has a kernel {list(kernel.shape)}, accepted: [3, 3, {channels}, outputs]")
        if kind == "dense" and (len(kernel.shape) != 2 or kernel.shape[0] % channels):
            raise UserError(f"{path}: layer {number} has a kernel {list(kernel.shape)}, accepted: [a multiple of {channels}, outputs]")
        channels = channels if kernel is None else len(bias)
    return layers[: second + 1]


def _shapes(layers):
    return {"features": layers[-1][2].shape}


def _convolutions(layers, weights, images):
    """Feature maps: those before each pooling, and the last pooled one.

    Args:
        layers: as `read_layers` returns them.
        weights: (kernel, bias) tensors of each layer; only those of convolutions are used.
        images: float32 [N, H, W, 3], 0..255.
    """
    x = images[..., ::-1] - tf.constant(CAFFE_MEAN)  # [N, H, W, 3], blue first
    taps = []
    for (kind, _, _), pair in zip(layers, weights):
        if kind == "conv":
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, pair[0], [1, 1, 1, 1], "SAME"), pair[1]))  # [N, h, w, C]
        elif kind == "pool":
            taps.append(x)
            x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")  # [N, h/2, w/2, C]
    return taps, x


def _distances(layers, weights, one, other):
    """Perceptual distances [N] of images [N, H, W, 3]; see `Vgg16.distances`."""
    sides = [_convolutions(layers, weights, images)[0] for images in (one, other)]
    distance = 0.0
    for one, other in zip(*sides):
        one, other = (tap * tf.rsqrt(tf.reduce_sum(tf.square(tap), axis=-1, keepdims=True) + 1e-10) for tap in (one, other))
        distance += tf.reduce_mean(tf.reduce_sum(tf.square(one - other), axis=-1), axis=[1, 2])  # [N]
    return distance


def distance_function(path):
    """The perceptual distance for use in other graphs, with gradients.

    Args:
        path: of the Keras .h5 file.

    Returns:
        Function of two float tensors [N, H, W, 3], 0..255, at least 16×16, -> [N]; see `Vgg16.distances`.

    Raises:
        UserError: see `read_layers`.
    """
    layers = [layer for layer in read_layers(path) if layer[0] != "dense"]

    def distances(one, other):
        weights = [[tf.constant(array) for array in arrays if array is not None] for _, *arrays in layers]  # 59 MB for the real network
        return _distances(layers, weights, one, other)

    return distances


class Vgg16:
    """Features of images from the fully connected layers, or distances of image pairs, on all devices of the session."""

    @staticmethod
    def check(path):
        """Check a file without reading its weights.

        Returns:
            The `shapes` of its network.

        Raises:
            UserError: see `read_layers`.
        """
        with _opened(path) as layers:
            return _shapes(layers)

    def __init__(self, path, floating):
        """
        Args:
            path: of the Keras .h5 file.
            floating: images are passed as float32 and already resized, instead of as uint8 of any size.

        Raises:
            UserError: see `read_layers`.
        """
        self._layers = read_layers(path)
        self.input_size = int(round(np.sqrt(self._flat_inputs()))) << POOLS
        self.shapes = _shapes(self._layers)
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._session = tflib.get_session()
            replicas, pairs = [], []
            for device in tflib.devices():
                with tf.device(device):
                    weights = [[tflib.variables.from_array(array) for array in arrays if array is not None] for _, *arrays in self._layers]
                    replicas.append(self._build_features(weights, floating))
                    pairs.append(self._build_distances(weights))
            self._replicas, self._pairs = Replicas(self._session, replicas), Replicas(self._session, pairs)
        del self._layers  # half a gigabyte, now held by the variables

    def _flat_inputs(self):
        """Number of pixels of the last feature map: inputs of the first dense layer / channels of the last convolution."""
        dense = next(kernel for kind, kernel, _ in self._layers if kind == "dense")
        channels = [len(bias) for kind, _, bias in self._layers if kind == "conv"][-1]
        return dense.shape[0] // channels

    def _build_features(self, weights, floating):
        images = tf.placeholder(tf.float32 if floating else tf.uint8, [None, None, None, 3])
        resized = tf.image.resize_bilinear(tf.cast(images, tf.float32), [self.input_size] * 2)
        _, x = _convolutions(self._layers, weights, resized)
        for (kind, kernel, _), pair in zip(self._layers, weights):
            if kind == "dense":
                x = tf.reshape(x, [-1, kernel.shape[0]])  # height, width, channel order, as Keras flattens
                x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, pair[0]), pair[1]))  # [N, outputs]
        return images, {"features": x}

    def _build_distances(self, weights):
        pairs = tf.placeholder(tf.float32, [None, 2, None, None, 3])
        return pairs, {"distances": _distances(self._layers, weights, pairs[:, 0], pairs[:, 1])}

    def __call__(self, images):
        """Features of images [n, H, W, 3], 0..255, float32 if `floating` was given, else uint8: {"features": float32 [n, D]}."""
        return self._replicas(images)

    def distances(self, one, other):
        """Perceptual distance of image pairs: the LPIPS sum over five layers of squared differences of channel-normalized features
        (Zhang et al. 2018, equation 1), without the learned channel weights.

        Args:
            one, other: float32 [n, H, W, 3], 0..255, at least 16×16; they are not resized.

        Returns:
            float32 [n].
        """
        return self._pairs(np.stack([one, other], axis=1))["distances"]

    def close(self):
        """Free the session."""
        with self._graph.as_default():
            tflib.close_session()
