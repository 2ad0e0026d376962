"""Copies of a network, one per device of a session, that share a batch."""

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import tflib


class Replicas:
    """Evaluates copies of a network, each on its share of a batch. A batch that does not fit into memory is split into smaller parts."""

    def __init__(self, session, replicas):
        """
        Args:
            session: tf.Session.
            replicas: list of (placeholder, dict of output tensors [n, ...]).
        """
        self._session = session
        self._replicas = replicas
        self._largest = None  # largest part that may fit, known after a larger one did not

    def __call__(self, images):
        """Evaluate the network on images, an array [n, ...]: dict of arrays [n, ...].

        Raises:
            UserError: out of memory with a single image on a device.
        """
        values, start = [], 0
        while start < len(images):
            part = images[start : start + (self._largest or len(images))]
            try:
                values.append(self._run(part))
                start += len(part)
            except tf.errors.ResourceExhaustedError:
                if len(part) <= len(self._replicas):
                    with tflib.memory_errors():
                        raise
                self._largest = len(part) // 2
        return {name: np.concatenate([value[name] for value in values]) for name in values[0]}

    def _run(self, images):
        used = [(part, replica) for part, replica in zip(np.array_split(images, len(self._replicas)), self._replicas) if len(part)]
        values = self._session.run([outputs for _, (_, outputs) in used], {placeholder: part for part, (placeholder, _) in used})
        return {name: np.concatenate([value[name] for value in values]) for name in self._replicas[0][1]}
