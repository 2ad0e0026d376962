"""Self-attention of tokens: by dot products (generator) and by Euclidean distances (discriminator).

Letters: N batch, T tokens, D width of a token, h heads, s = D / h.
"""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

from training.networks.attention import join_heads, split_heads
from training.networks.layers import linear, weight
from training.networks.vitgan.layers import dense


def dot_attention(x, heads):
    """softmax(Q·Kᵀ / √s)·V with Q, K, V = x·W (paper, eq. 4), heads joined, output layer; scope attn.

    Args:
        x: [N, T, D].
        heads: h.

    Returns:
        (output [N, T, D], probabilities [N, h, T, T]).
    """
    width = x.shape.as_list()[-1]
    with tf.variable_scope("attn"):
        q, k, v = [split_heads(linear(x, weight([width, width], name=f"{name}_weight")), heads) for name in "qkv"]  # [N, h, T, s]
        y, probs = attend(dot_logits(q, k), v)  # [N, h, T, s]
        return dense(join_heads(y), width, "o_{}"), probs


def l2_attention(x, heads, mode, weights=weight):
    """Attention by distance with tied queries and keys (paper, eq. 8): softmax(d(XW_q, XW_k) / √s)·XW_v, W_q = W_k; scope attn.

    Args:
        x: [N, T, D].
        heads: h.
        mode: see `l2_logits`.
        weights: see `layers.dense`.

    Returns:
        (output [N, T, D], probabilities [N, h, T, T]).
    """
    width = x.shape.as_list()[-1]
    with tf.variable_scope("attn"):
        q, v = [split_heads(linear(x, weights([width, width], name=f"{name}_weight")), heads) for name in ("qk", "v")]  # [N, h, T, s]
        y, probs = attend(l2_logits(q, q, mode), v)  # [N, h, T, s]
        return dense(join_heads(y), width, "o_{}", weights), probs


def attend(logits, v):
    """(softmax(logits)·v, probabilities): logits [N, h, T, T'], v [N, h, T', s]."""
    probs = tf.nn.softmax(logits)  # [N, h, T, T']
    return tf.matmul(probs, v), probs


def dot_logits(q, k):
    """q·kᵀ / √s: [N, h, T, s], [N, h, T', s] -> [N, h, T, T']."""
    return tf.matmul(q / np.sqrt(q.shape.as_list()[-1]).astype(np.float32), k, transpose_b=True)


def l2_logits(q, k, mode):
    """Attention logits from the distances d of queries and keys.

    Args:
        q, k: [N, h, T, s], [N, h, T', s]; the same tensor when they are tied.
        mode: "paper" +d/√s (the printed formula: far tokens attract), "kim" −d²/√s (Kim et al. 2021: the Lipschitz one), "kim_dh" −d²/s.

    Returns:
        Tensor [N, h, T, T'].
    """
    squares = squared_distances(q, k)
    size = float(q.shape.as_list()[-1])
    if mode == "paper":
        return safe_sqrt(squares) / np.sqrt(size).astype(np.float32)
    return -squares / {"kim": np.sqrt(size).astype(np.float32), "kim_dh": size}[mode]


def squared_distances(q, k):
    """‖q_i − k_j‖² as ‖q‖² − 2·q·k + ‖k‖², which needs no [T, T', s] differences; exactly 0 where only rounding errors are left.

    Args:
        q, k: [N, h, T, s], [N, h, T', s].

    Returns:
        Tensor [N, h, T, T'], non-negative; its diagonal is 0 if q is k.
    """
    sizes_q = tf.reduce_sum(tf.square(q), axis=-1)[..., tf.newaxis]  # [N, h, T, 1]
    sizes_k = tf.reduce_sum(tf.square(k), axis=-1)[..., tf.newaxis, :]  # [N, h, 1, T']
    sizes = sizes_q + sizes_k  # [N, h, T, T']
    squares = sizes - 2 * tf.matmul(q, k, transpose_b=True)
    noise = 8 * np.finfo(q.dtype.base_dtype.as_numpy_dtype).eps
    distinct = squares > noise * sizes
    if q is k:  # also if the device multiplies with fewer digits than it adds
        distinct = tf.logical_and(distinct, tf.logical_not(tf.eye(q.shape.as_list()[2], dtype=tf.bool)))
    return tf.where(distinct, squares, tf.zeros_like(squares))


def safe_sqrt(x):
    """√x with gradient 0 at 0: a single tf.where would still multiply the root's infinite slope by 0."""
    positive = x > 0
    root = tf.sqrt(tf.where(positive, x, tf.ones_like(x)))
    return tf.where(positive, root, tf.zeros_like(x))
