"""Random numbers as pure functions of (seed, stream name, step): the basis of exact resumption.

Every draw names its stream; the name and the seed are hashed to one half of a stateless seed pair, the step (or the seed of the image)
is the other half. No draw depends on how many others precede it.
"""

import zlib

import numpy as np
import tensorflow.compat.v1 as tf


def stream_key(seed, name):
    """31-bit key of a named stream (int)."""
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF


def numpy_stream(seed, name):
    """np.random.RandomState of a named stream: the same numbers in every NumPy version."""
    return np.random.RandomState(stream_key(seed, name))


class RandomStreams:
    """Streams of one step, shared by all rows of a batch.

    Args:
        seed: int, the run's seed.
        step: int or int64 scalar tensor; different steps give different numbers.
    """

    def __init__(self, seed, step=0, path=""):
        self.seed = seed
        self.step = step
        self.path = path

    def child(self, name):
        """Streams in a sub-namespace."""
        return RandomStreams(self.seed, self.step, f"{self.path}{name}/")

    def _draw(self, sample, name, shape):
        key = tf.stack([tf.constant(stream_key(self.seed, self.path + name), tf.int64), tf.cast(self.step, tf.int64)])
        return sample(shape=shape, seed=key)

    def normal(self, name, shape):
        """N(0, 1) numbers, float32."""
        return self._draw(tf.random.stateless_normal, name, shape)

    def uniform(self, name, shape):
        """Uniform numbers in [0, 1), float32."""
        return self._draw(tf.random.stateless_uniform, name, shape)


class PerImageStreams:
    """Streams in which row i depends on seeds[i] alone: the same image at any batch size. For sampling, not for training.

    Args:
        seeds: int64 tensor [N].
    """

    def __init__(self, seeds, path=""):
        self.seeds = seeds
        self.path = path

    def child(self, name):
        """Streams in a sub-namespace."""
        return PerImageStreams(self.seeds, f"{self.path}{name}/")

    def _draw(self, sample, name, shape):
        key = stream_key(0, self.path + name)
        tail = list(shape)[1:] if isinstance(shape, (list, tuple)) else shape[1:]
        return tf.map_fn(lambda seed: sample(shape=tail, seed=tf.stack([tf.constant(key, tf.int64), seed])), self.seeds, dtype=tf.float32)

    def normal(self, name, shape):
        """N(0, 1) numbers, float32, one independent row per image."""
        return self._draw(tf.random.stateless_normal, name, shape)

    def uniform(self, name, shape):
        """Uniform numbers in [0, 1), float32, one independent row per image."""
        return self._draw(tf.random.stateless_uniform, name, shape)
