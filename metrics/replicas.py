"""Copies of a network, one on each device of a session, that share a batch."""

import numpy as np


def run_replicas(session, replicas, images):
    """Evaluate copies of a network, each on its share of a batch.

    Args:
        session: tf.Session.
        replicas: list of (placeholder, dict of output tensors [n, ...]).
        images: array [n, ...].

    Returns:
        Dict of arrays [n, ...].
    """
    used = [(part, replica) for part, replica in zip(np.array_split(images, len(replicas)), replicas) if len(part)]
    values = session.run([outputs for _, (_, outputs) in used], {placeholder: part for part, (placeholder, _) in used})
    return {name: np.concatenate([value[name] for value in values]) for name in replicas[0][1]}
