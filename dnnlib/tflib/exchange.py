"""Arrays and bytes that workers exchange outside the training graph."""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib.tflib import setup

CHUNK = 2**22  # maximum number of int64 values in one sum: 32 MB


def gather(values):
    """Collect integers from every worker.

    Args:
        values: int64-compatible array [n], the same n in all workers.

    Returns:
        int64 [workers, n].
    """
    workers = setup.workers()
    table = np.zeros([workers.count, len(values)], np.int64)
    table[workers.rank] = values
    return table if workers.count == 1 else _sum(table.reshape(-1)).reshape(table.shape)


def broadcast(payload):
    """Send bytes of worker 0 to all workers.

    Args:
        payload: bytes in worker 0; ignored in the others.
    """
    workers = setup.workers()
    if workers.count == 1:
        return payload
    size = int(gather([len(payload) if workers.leads else 0])[0, 0])
    padded = np.zeros(-(-size // 8), np.int64)
    if workers.leads:
        padded.view(np.uint8)[:size] = np.frombuffer(payload, np.uint8)
    return _sum(padded).tobytes()[:size]


def _sum(array):
    """Sum of an int64 array over the workers."""
    return np.concatenate([_sum_chunk(array[start : start + CHUNK]) for start in range(0, len(array), CHUNK)] or [array])


def _sum_chunk(array):
    graph = tf.get_default_graph()
    calls = getattr(graph, "_exchange_calls", {})
    if len(array) not in calls:
        with tf.device("/cpu:0"):
            given = tf.placeholder(tf.int64, [len(array)], name="exchanged")
        calls[len(array)] = given, setup.workers().sum(given, "/cpu:0")
        graph._exchange_calls = calls
    given, total = calls[len(array)]
    return setup.run(total, {given: array})
