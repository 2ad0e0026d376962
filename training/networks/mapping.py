"""Mapping network: z -> w (Karras et al. 2019; GANformer, section 3.2).

Letters: N batch, k region latents, K all latents (with the transformer, k and the global one), L layers of the synthesis.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

from dnnlib.tflib import variables
from training.networks.attention import layer_arguments, residual_attention_block
from training.networks.layers import dense, linear, weight


def mapping(config, z, labels, positions, ctx, mask=None):
    """Map latents to the intermediate space, in scope G_mapping.

    Args:
        config: GeneratorConfig.
        z: [N, K, z_dim].
        labels: [N, c_dim].
        positions: latent positions [k, w_dim].
        ctx: Context of the call.
        mask: [N, 1, k], 1 for present components; or None.

    Returns:
        w [N, K, L, w_dim], the same for every layer.
    """
    with tf.variable_scope("G_mapping"):
        x = with_labels(z, labels, config.c_dim, config.z_dim) if config.c_dim else z  # [N, K, z_dim or 2·z_dim]
        if config.mapping_dim:
            x = dense(x, config.mapping_dim, suffix="_map_start")  # [N, K, mapping_dim]
            positions = dense(positions, config.mapping_dim, suffix="_map_pos") if config.use_pos else None
        k = config.components_num
        x = tf.concat([normalize_latents(x[:, :k]), x[:, k:]], axis=1)
        if config.mapping_resnet and config.c_dim and not config.mapping_dim:
            x = _join(x, config.w_dim)  # [N, K, w_dim]
        region, global_latent = x[:, :k], x[:, k:]

        attention_positions = positions if config.use_pos else None
        region = _map_region(config, region, attention_positions, ctx, mask)  # [N, k, width]
        if config.transformer:
            with tf.variable_scope("global"):
                global_latent = _layers(config, global_latent, config.mapping_width, ctx.child("global"))  # [N, 1, width]
            region = tf.concat([region, global_latent], axis=1)  # [N, K, width]
        if config.mapping_dim:
            region = dense(region, config.w_dim, suffix="_map_end")  # [N, K, w_dim]
        return tf.tile(region[:, :, tf.newaxis], [1, 1, config.num_ws, 1])  # [N, K, L, w_dim]


def with_labels(z, labels, c_dim, z_dim):
    """Concatenate an embedding of the label to every component, along the features."""
    with tf.variable_scope("LabelConcat"):
        table = variables.get_variable("weight", [c_dim, z_dim], init=variables.normal())
        embedding = tf.matmul(labels, table)  # [N, z_dim]
    embedding = tf.tile(embedding[:, tf.newaxis], [1, z.shape.as_list()[1], 1])  # [N, K, z_dim]
    return tf.concat([z, embedding], axis=-1)  # [N, K, 2·z_dim]


def _join(x, width):
    """Project latents with their label embedding to the width of the residual blocks."""
    with tf.variable_scope("LabelConcat"):
        return linear(x, weight([x.shape.as_list()[-1], width], name="weight_join"))


def normalize_latents(x):
    """x · rsqrt(mean x² + 1e-8) over the features of each latent."""
    return x * tf.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + 1e-8)


def _map_region(config, x, positions, ctx, mask):
    if not config.mapping_shared_dim:
        return _layers(config, x, config.mapping_width, ctx, positions, mask, attend=config.self_attention_in_mapping)
    _, count, width = x.shape.as_list()
    shared = tf.reshape(x, [-1, count * width])  # [N, k·dim]
    shared = dense(shared, config.mapping_shared_dim, suffix="_inmap")  # [N, shared_dim]
    shared = _layers(config, shared[:, tf.newaxis], config.mapping_shared_dim, ctx)[:, 0]  # [N, shared_dim]
    out = dense(shared, count * config.mapping_width, suffix="_outmap")  # [N, k·width]
    return tf.reshape(out, [-1, count, config.mapping_width])  # [N, k, width]


def _layers(config, x, width, ctx, positions=None, mask=None, attend=False):
    """The stack of layers on rows [N, rows, any] -> [N, rows, width]."""
    if not config.mapping_resnet:
        for index in range(config.mapping_num_layers):
            with tf.variable_scope(f"Dense{index}"):
                x = dense(x, width, act="lrelu", lrmul=config.mapping_lrmul)
        return x
    shared = layer_arguments("l2l", config, positions, mask=mask)
    blocks = config.mapping_num_layers // 2
    for index in range(blocks):
        x = residual_attention_block(x, x if attend else None, ctx, name=str(index), lrmul=config.mapping_lrmul, **shared)
    with tf.variable_scope(f"Dense{blocks - 1}"):
        return dense(x, width, act="lrelu", lrmul=config.mapping_lrmul)
