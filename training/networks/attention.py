"""Bipartite attention between rows of features: simplex, duplex (k-means) and self-attention (GANformer, section 3.1).

Letters: N batch, F `from` rows (which are updated), T `to` rows (which the information comes from), dim width of the `from` rows,
h heads, s = dim / h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib.tflib import variables
from training.networks.layers import dense

EPSILON = 1e-8
MASKED = -10000.0
BATCH_NORM_DECAY = 0.999


@dataclass
class AttentionOptions:
    """Options of one attention layer, shared by the layers of a network.

    Attributes:
        num_heads: h.
        integration: how the control changes the `from` rows: add, mul or both.
        norm: normalization before the integration: None, layer, instance or batch.
        from_gate, to_gate: whether there is a sigmoid gate on that side.
        dropout: dropout rate in training.
        kmeans, kmeans_iters, iterative: duplex attention.
    """

    num_heads: int = 1
    integration: str = "add"
    norm: str | None = None
    from_gate: bool = False
    to_gate: bool = False
    dropout: float = 0.0
    kmeans: bool = False
    kmeans_iters: int = 1
    iterative: bool = False


def layer_arguments(kind, config, latent_pos=None, grid_pos=None, mask=None, duplex=False):
    """Arguments of one of a network's attention layers: information flows from the first letter of its kind to the last, l latents, n grid.

    Args:
        kind: l2n, n2l, l2l or n2n.
        config: GeneratorConfig or DiscriminatorConfig.
        latent_pos, grid_pos: positions of the two sides, or None.
        mask: of the latents, see `attention_layer`; or None.
        duplex: integration, normalization and k-means are those of the configuration.

    Returns:
        dict: keyword arguments for `attention_layer` and `residual_attention_block`.
    """
    source, target = kind[0], kind[-1]
    gates, positions = {"l": config.ltnt_gate, "n": config.img_gate}, {"l": latent_pos, "n": grid_pos}
    chosen = {name: getattr(config, name) for name in ("integration", "norm", "kmeans", "kmeans_iters", "iterative") if duplex}
    options = AttentionOptions(config.num_heads, from_gate=gates[target], to_gate=gates[source], dropout=config.attention_dropout, **chosen)
    own_mask = mask if source == "l" else None
    return {"options": options, "pos_from": positions[target], "pos_to": positions[source], "mask": own_mask}


@dataclass
class Attended:
    """Result of an attention layer.

    Attributes:
        x: the updated `from` rows [N, F, dim].
        probs: attention after the gates [N, h, F, T].
        assignments: k-means state for the next layer [N, h, T, F], or None.
    """

    x: Any
    probs: Any
    assignments: Any


def attention_layer(x, y, ctx, options, name, pos_from=None, pos_to=None, mask=None, assignments=None):
    """One attention layer, scope AttLayer_<name>: information flows from y to x.

    Args:
        x: [N, F, dim].
        y: [N, T, any].
        ctx: Context of the call.
        options: AttentionOptions.
        name: scope suffix ("l2n").
        pos_from, pos_to: positions [F, any], [T, any], or None.
        mask: [N, 1, T], 1 for rows that may be attended to; or None.
        assignments: [N, h, T, F] of the previous layer, resized to this grid (iterative k-means), or None.

    Returns:
        Attended.
    """
    ctx = ctx.child(name)
    with tf.variable_scope(f"AttLayer_{name}"):
        content, queries, keys, values = _projections(x, y, pos_from, pos_to)
        if options.kmeans:
            probs = _duplex_probs(content, queries, keys, ctx, options, mask, assignments)  # [N, h, F, T]
        else:
            probs = _simplex_probs(queries, keys, ctx, options, mask)  # [N, h, F, T]
        probs = _gated(probs, x, y, options, pos_from, pos_to)  # [N, h, F, T]
        control = tf.matmul(probs, split_heads(values, options.num_heads))  # [N, h, F, s]
        updated = _integrate(x, join_heads(control), ctx, options)  # [N, F, dim]
        new_assignments = _assign(probs) if options.kmeans else None
    return Attended(updated, probs, new_assignments)


def residual_attention_block(x, y, ctx, options, name, lrmul=1.0, pos_from=None, pos_to=None, mask=None):
    """Attention of latents, then two dense layers with a residual connection from the block's input.

    Args:
        x: [N, F, dim].
        y: [N, T, any], or None for no attention (the two dense layers alone).
        name: scopes AttLayer_<name>, Dense<name>_0, Dense<name>_1.
        lrmul: learning-rate multiplier of the dense layers.

    Returns:
        Tensor [N, F, dim].
    """
    width = x.shape.as_list()[-1]
    shortcut = x
    if y is not None:
        x = attention_layer(x, y, ctx, options, name, pos_from=pos_from, pos_to=pos_to, mask=mask).x
    with tf.variable_scope(f"Dense{name}_0"):
        x = dense(x, width, act="lrelu", lrmul=lrmul)
    with tf.variable_scope(f"Dense{name}_1"):
        x = dense(x, width, lrmul=lrmul)
    return tf.nn.leaky_relu(x + shortcut, 0.2)


def split_heads(x, num_heads):
    """[N, F, h·s] -> [N, h, F, s], heads are contiguous channels."""
    rows, width = x.shape.as_list()[-2:]
    x = tf.reshape(x, [-1, rows, num_heads, width // num_heads])  # [N, F, h, s]
    return tf.transpose(x, [0, 2, 1, 3])  # [N, h, F, s]


def join_heads(x):
    """[N, h, F, s] -> [N, F, h·s]."""
    _, heads, rows, size = x.shape.as_list()
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, rows, heads * size])  # [N, F, h·s]


def _projections(x, y, pos_from, pos_to):
    """Dense layers of the rows, plus positions in queries and keys: content and queries [N, F, dim], keys and values [N, T, dim]."""
    dim = x.shape.as_list()[-1]
    content = queries = dense(x, dim, suffix="_query")  # [N, F, dim]
    keys = dense(y, dim, suffix="_key")  # [N, T, dim]
    values = dense(y, dim, suffix="_value")  # [N, T, dim]
    if pos_from is not None:
        queries = queries + dense(pos_from, dim, suffix="_from_pos")  # [N, F, dim]
    if pos_to is not None:
        keys = keys + dense(pos_to, dim, suffix="_to_pos")  # [N, T, dim]
    return content, queries, keys, values


def _simplex_probs(queries, keys, ctx, options, mask):
    """softmax(Q·Kᵀ / sqrt(s)) of queries [N, F, dim] and keys [N, T, dim]: [N, h, F, T]."""
    queries, keys = split_heads(queries, options.num_heads), split_heads(keys, options.num_heads)  # [N, h, F, s], [N, h, T, s]
    scores = tf.matmul(queries, keys, transpose_b=True) / np.sqrt(keys.shape.as_list()[-1])  # [N, h, F, T]
    return _dropout(_softmax(scores, mask), ctx, options.dropout)


def _softmax(scores, mask):
    """Softmax over the `to` rows of scores [N, h, F, T], without those that mask [N, 1, T] (or None) leaves out: [N, h, F, T]."""
    if mask is not None:
        scores = scores + (1.0 - mask[:, tf.newaxis]) * MASKED  # [N, h, F, T]
    return tf.nn.softmax(scores)


def _dropout(probs, ctx, rate):
    """Dropout of probs [N, h, F, T], in training only: half the rate on single entries, half on whole `to` rows."""
    if not ctx.training or not rate:
        return probs
    keep = 1.0 - rate / 2
    shape = tf.shape(probs)
    columns = tf.stack([shape[0], shape[1], 1, shape[3]])
    probs = probs * tf.floor(keep + ctx.streams.uniform("dropout", shape)) / keep
    return probs * tf.floor(keep + ctx.streams.uniform("dropout_columns", columns)) / keep


def _duplex_probs(content, queries, keys, ctx, options, mask, assignments):
    """Attention of elements to centroids, refined kmeans_iters times (GANformer, section 3.1.2): [N, h, F, T].

    Elements E are the queries' content [N, F, dim] and their positions, side by side. S = (E·st_weights)·Mᵀ / sqrt(s) with centroids
    M = A·E; st_weights enter the scores only. The centroids take the place of the keys [N, T, dim], which do not enter the scores.
    """
    tokens, dim = keys.shape.as_list()[1:]
    head_size = dim // options.num_heads
    width = 2 * head_size
    elements = split_heads(tf.concat([content, queries - content], axis=-1), options.num_heads)  # [N, h, F, 2s]
    if assignments is not None:
        centroids = tf.matmul(assignments, elements)  # [N, h, T, 2s]
    elif options.iterative:
        centroids = split_heads(dense(keys, options.num_heads * width, suffix="_key2"), options.num_heads)  # [N, h, T, 2s]
    else:
        initial = variables.get_variable("toasgn_init", [1, options.num_heads, tokens, width], init=variables.normal())
        # Not left to broadcasting: matmul by a factor with one row for all images corrupts the heap in TensorFlow 2.20 and 2.21 on CPUs
        # (its issue 117700).
        centroids = tf.tile(initial, tf.stack([tf.shape(elements)[0], 1, 1, 1]))  # [N, h, T, 2s]
    probs = None
    for index in range(options.kmeans_iters):
        with tf.variable_scope(f"iter_{index}"):
            if index:
                centroids = tf.matmul(_assign(probs), elements)  # [N, h, T, 2s]
            weights = variables.get_variable("st_weights", [options.num_heads, 1, width], init=variables.constant(1.0))
            scores = tf.matmul(elements * weights, centroids, transpose_b=True) / np.sqrt(head_size)  # [N, h, F, T]
            probs = _dropout(_softmax(scores, mask), ctx.child(f"iter_{index}"), options.dropout)
    return probs


def _assign(probs):
    """Share of every `from` row in each centroid, normalized over the rows: [N, h, F, T] -> [N, h, T, F]."""
    shares = tf.transpose(probs, [0, 1, 3, 2])  # [N, h, T, F]
    return shares / (tf.reduce_sum(shares, axis=-1, keepdims=True) + EPSILON)


def _gate(rows, positions, num_heads, name, shift):
    """sigmoid(shift + rows·W [+ positions·W]): [N, rows, any] -> [N, h, rows]."""
    gate = dense(rows, num_heads, suffix=f"_{name}_cont") + shift
    if positions is not None:
        gate = gate + dense(positions, num_heads, suffix=f"_{name}_pos")
    return tf.transpose(tf.sigmoid(gate), [0, 2, 1])


def _gated(probs, x, y, options, pos_from, pos_to):
    """Attention [N, h, F, T] times the gates of its `to` rows y [N, T, any] and its `from` rows x [N, F, dim], where they exist."""
    if options.to_gate:
        probs = probs * _gate(y, pos_to, options.num_heads, "e", 0.0)[:, :, tf.newaxis, :]  # [N, h, F, T]
    if options.from_gate:
        probs = probs * _gate(x, pos_from, options.num_heads, "n", 1.0)[:, :, :, tf.newaxis]  # [N, h, F, T]
    return probs


def _integrate(x, control, ctx, options):
    """The `from` rows x [N, F, dim], normalized and then changed by the attended values, control [N, F, dim]: [N, F, dim]."""
    dim = x.shape.as_list()[-1]
    if options.norm is not None:
        x = _normalize(x, ctx, options)
    if options.integration == "both":
        control = dense(control, 2 * dim, suffix="_out")  # [N, F, 2·dim]
        gain, bias = tf.split(control, 2, axis=-1)
        return x * (gain + 1.0) + bias
    control = dense(control, dim, suffix="_out")  # [N, F, dim]
    return x * (control + 1.0) if options.integration == "mul" else x + control


def _normalize(x, ctx, options):
    """Remove what the integration is about to set, the mean (add, both) or the scale (mul, both): [N, F, dim] -> [N, F, dim]."""
    axes = {"layer": [2], "instance": [1], "batch": [0, 1]}[options.norm]
    if options.integration in ("add", "both"):
        x = x - _statistic("norm_mean", x, axes, ctx, options.norm, 0.0)
    if options.integration in ("mul", "both"):
        x = x * tf.rsqrt(_statistic("norm_square", tf.square(x), axes, ctx, options.norm, 1.0) + EPSILON)
    return x


def _statistic(name, x, axes, ctx, norm, initial):
    """Mean over axes; in batch normalization outside training, its moving average."""
    if norm != "batch":
        return tf.reduce_mean(x, axis=axes, keepdims=True)
    average = variables.get_variable(name, [x.shape.as_list()[-1]], init=variables.constant(initial), trainable=False)
    if not ctx.training:
        return average
    mean = tf.reduce_mean(x, axis=axes)  # [dim]
    ctx.updates.append((average, mean + (average - mean) * BATCH_NORM_DECAY))
    return mean
