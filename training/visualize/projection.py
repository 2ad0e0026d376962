"""Projection: the latents w (and noise) whose image is nearest to a given one (Karras et al. 2020, appendix D).

The distance needs no trained network: it sums squared errors of the pixels at several scales, and of features of fixed random convolutions,
which see edges and textures. The caller may supply a perceptual distance in place of these features.
Letters: K latents, L layers of w, C H W image.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import PIL.Image
import tensorflow.compat.v1 as tf

from dnnlib import UserError, atomic_output, tflib
from dnnlib.tflib import numpy_stream
from training import images
from training.manifest import picture_box
from training.picture_files import PictureError, cut, open_picture, to_channels
from training.visualize import sampling

AVERAGED = 256              # latents from which the start and the spread of w are computed
LEARNING_RATE = 0.1
RAMP_UP, RAMP_DOWN = 0.05, 0.25   # fractions of the steps in which the learning rate rises and falls
EXPLORATION = 0.05          # noise added to w at the start, relative to the spread of w
EXPLORED = 0.75             # fraction of the steps after which there is none
NOISE_WEIGHT = 1e3          # weight of the penalty that keeps the noise white
FEATURES_WEIGHT = 0.5
PERCEPTUAL_WEIGHT = 0.2     # weight of a perceptual distance, about 1 in size, in place of the random features
PERCEPTUAL_SIZES = (32, 256)  # images are repeated or averaged to a size in this range for it
FEATURES = ((16, 1), (32, 2), (64, 2))  # random convolutions: channels, stride
SMALLEST_SCALE = 4          # pixels


class Projection(NamedTuple):
    """What was found for an image."""

    w: np.ndarray       # [K, L, w_dim]
    noise: dict         # name of a noise variable -> array; empty if the noise was not optimized
    target: np.ndarray  # uint8 [C, H, W], the given image at the network's size
    picture: np.ndarray  # uint8 [C, H, W], its reconstruction
    distance: float     # between the two


def read_target(path, config, ratio):
    """Read an image as the network would produce it: its largest centred crop of that ratio, at the network's width.

    Args:
        path: file name.
        config: the generator's configuration.
        ratio: height / width.

    Returns:
        uint8 [C, H, W].

    Raises:
        UserError: it cannot be read.
    """
    try:
        picture, _ = to_channels(open_picture(path), config.num_channels)
    except PictureError as error:
        raise UserError(f"--project {path}: not a readable image ({error})") from None
    _, top, width, bottom = picture_box(config.resolution, ratio)
    return images.from_pil(cut(picture, ratio).resize((width, bottom - top), PIL.Image.Resampling.LANCZOS))


def project(sampler, target, steps, with_noise, perceptual=None):
    """Find w and noise for an image. The network's own noise is restored at the end.

    Args:
        sampler: training.visualize.sampling.Sampler.
        target: uint8 [C, H, W] without padding.
        steps: number of optimization steps.
        with_noise: whether the stored noise is optimized too.
        perceptual: see `distance`.

    Returns:
        Projection.
    """
    ws = sampler.ws_of_seeds(sampling.seeds_of(0, 0, AVERAGED))  # [n, K, L, w_dim]
    spread = float(np.sqrt(np.mean(np.square(ws - ws.mean(axis=0)))))
    search = _Search(sampler, target, ws.mean(axis=0), with_noise, perceptual)
    stream = numpy_stream(0, "projection")
    with sampler.bar(steps, "projection", "step") as progress:
        for step in range(steps):
            part = step / steps
            strength = EXPLORATION * spread * max(0.0, 1.0 - part / EXPLORED) ** 2
            search.step(_learning_rate(part), strength * stream.standard_normal(ws[0].shape))
            progress.update(1)
    found = search.result(sampler, target)
    search.restore()
    return found


def _learning_rate(part):
    down = min(1.0, (1.0 - part) / RAMP_DOWN)
    return LEARNING_RATE * (0.5 - 0.5 * np.cos(down * np.pi)) * min(1.0, (part + 1e-3) / RAMP_UP)


class _Search:
    """The optimization as a graph: variables, loss, update."""

    def __init__(self, sampler, target, start, with_noise, perceptual):
        network = sampler.Gs
        noisy = with_noise and network.config.local_noise
        names = [name for name in network.variables if name.rpartition("/")[2].startswith("noise") and not name.endswith("strength")]
        noises = {name: network.variables[name] for name in names} if noisy else {}
        self._w = tf.Variable(start[np.newaxis].astype(np.float32), trainable=False)  # [1, K, L, w_dim]
        self._exploration = tf.placeholder_with_default(np.zeros_like(start, np.float32), start.shape)
        self._rate = tf.placeholder_with_default(0.0, [])
        out = network.part("synthesis")(self._w + self._exploration, noise_mode=sampler.noise_mode)
        wanted = tf.constant(target[np.newaxis] / 127.5 - 1.0, tf.float32)
        self._distance = distance(_rows_inside(out.images, target.shape), wanted, perceptual)
        w_gradient, *noise_gradients = tf.gradients(self._distance, [self._w, *noises.values()])
        read = {name: gradient for name, gradient in zip(noises, noise_gradients) if gradient is not None}  # some noise may be unused
        self._noises = {name: noises[name] for name in read}
        penalties = {name: NOISE_WEIGHT * whiteness_penalty(noise) for name, noise in self._noises.items()}
        gradients = [(w_gradient, self._w)]
        gradients += [(read[name] + tf.gradients(penalties[name], noise)[0], noise) for name, noise in self._noises.items()]
        optimizer = tf.train.AdamOptimizer(self._rate, beta1=0.9, beta2=0.999)
        self._update = optimizer.apply_gradients(gradients)
        with tf.control_dependencies([self._update]):
            self._standardize = tf.group(*[noise.assign(_standardized(noise)) for noise in self._noises.values()])
        tflib.run(tf.variables_initializer([self._w, *optimizer.variables()]))
        self._before = tflib.run(self._noises)

    def step(self, rate, exploration):
        """One step of the optimization."""
        tflib.run([self._update, self._standardize], {self._rate: rate, self._exploration: exploration})

    def result(self, sampler, target):
        """The Projection so far."""
        w, noise, reached = tflib.run([self._w, self._noises, self._distance])
        return Projection(w[0], noise, target, sampler.pictures(w)[0], float(reached))

    def restore(self):
        """Restore the network's own noise."""
        tflib.variables.assign({self._noises[name]: value for name, value in self._before.items()})


def _rows_inside(pictures, shape):
    """The rows of images [1, C, H, W] that hold the target [C, H', W]; the others are padding."""
    height = pictures.shape.as_list()[2]
    top = (height - shape[1]) // 2
    return pictures[:, :, top : top + shape[1]]


def distance(one, other, perceptual=None):
    """How different two images look.

    Args:
        one, other: float tensors [1, C, H, W], roughly in [-1, 1].
        perceptual: function of two tensors [1, H, W, 3], 0..255, -> [1], used in place of the random features; None for the latter.

    Returns:
        Scalar tensor: the mean over scales of the mean squared error, plus half of its mean over layers of random features (or a fifth of
        the perceptual distance).
    """
    pair = tf.transpose(tf.concat([one, other], axis=0), [0, 2, 3, 1])  # [2, H, W, C]
    errors, scaled = [_mean_square(pair)], pair
    while min(scaled.shape.as_list()[1:3]) >= 2 * SMALLEST_SCALE:
        scaled = tf.nn.avg_pool(scaled, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
        errors.append(_mean_square(scaled))
    pixels = tf.add_n(errors) / len(errors)
    if perceptual is not None:
        sides = tf.split((_for_perceptual(pair) + 1.0) * 127.5, 2)
        return pixels + PERCEPTUAL_WEIGHT * tf.reduce_sum(perceptual(*sides))
    features, x = [], pair
    for index, (channels, stride) in enumerate(FEATURES):
        inputs = x.shape.as_list()[3]
        kernel = numpy_stream(0, f"projection/features{index}").standard_normal([3, 3, inputs, channels]) * np.sqrt(2 / (9 * inputs))
        x = tf.nn.leaky_relu(tf.nn.conv2d(x, tf.constant(kernel, tf.float32), strides=[1, stride, stride, 1], padding="SAME"))
        features.append(_mean_square(x))
    return pixels + FEATURES_WEIGHT * tf.add_n(features) / len(features)


def _for_perceptual(pair):
    """Images [2, H, W, C] with three channels (gray repeated, alpha dropped) and a size in the range of PERCEPTUAL_SIZES."""
    low, high = PERCEPTUAL_SIZES
    pair = tf.tile(pair, [1, 1, 1, 3]) if pair.shape.as_list()[3] == 1 else pair[..., :3]
    while max(pair.shape.as_list()[1:3]) > high:
        pair = tf.nn.avg_pool(pair, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
    height, width = pair.shape.as_list()[1:3]
    times = -(-low // min(height, width))
    return tf.image.resize_nearest_neighbor(pair, [times * height, times * width]) if times > 1 else pair


def _mean_square(pair):
    return tf.reduce_mean(tf.square(pair[0] - pair[1]))


def whiteness_penalty(noise):
    """Squared correlations of noise with itself shifted by one cell, right and down, at every scale (Karras et al. 2020, appendix D).

    Args:
        noise: [rows, 1, h, w].

    Returns:
        Scalar tensor.
    """
    x, penalty = tf.transpose(noise, [0, 2, 3, 1]), tf.constant(0.0)  # [rows, h, w, 1]
    while True:
        penalty += sum(tf.square(tf.reduce_mean(x * tf.roll(x, shift=1, axis=axis))) for axis in (1, 2))
        if min(x.shape.as_list()[1:3]) <= 8:
            return penalty
        x = 2.0 * tf.nn.avg_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")  # the mean of four has half their standard deviation


def _standardized(noise):
    centred = noise - tf.reduce_mean(noise)
    return centred * tf.rsqrt(tf.reduce_mean(tf.square(centred)) + 1e-8)


def save(found, folder, name):
    """Write a Projection as <name>-projected.png, <name>-side-by-side.png (the image, then its reconstruction) and <name>-projected.npz
    (w [K, L, w_dim], distance, and the noise by variable name).

    Args:
        found: Projection.
        folder: where the files are written.
        name: prefix of their names.
    """
    images.save_png(found.picture, os.path.join(folder, f"{name}-projected.png"))
    images.save_png(images.make_grid(np.stack([found.target, found.picture]), 2), os.path.join(folder, f"{name}-side-by-side.png"))
    with atomic_output(os.path.join(folder, f"{name}-projected.npz")) as file:
        np.savez_compressed(file, w=found.w, distance=found.distance, **found.noise)
