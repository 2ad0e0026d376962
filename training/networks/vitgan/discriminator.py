"""The ViTGAN discriminator: overlapping patches, a class token, blocks with distance attention (paper, section 3.2).

Letters: N batch, T windows, D width of a token, P patch side.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

from dnnlib import EasyDict
from dnnlib.tflib import variables
from training.networks.vitgan.attention import l2_attention
from training.networks.vitgan.layers import dense, layer_norm, mlp, position_embedding
from training.networks.vitgan.patches import overlapping_patches
from training.networks.vitgan.spectral import spectral_weight


def discriminator(config, images, labels, training=False, streams=None):
    """Images -> scores.

    Blocks (paper, eq. 5-7): h' = h + L2MSA(LN(h)), h = h' + MLP(LN(h')); every dense kernel is spectrally normalised.

    Args:
        config: ViTGANDiscriminatorConfig.
        images: [N, channels, S, S] in [−1, 1].
        labels: [N, c_dim].
        training, streams: accepted as by every discriminator, and unused: nothing here is random.

    Returns:
        EasyDict: scores [N, 1].
    """
    h = embed(config, images)  # [N, T+1, D]
    for index in range(config.depth):
        with tf.variable_scope(f"block{index}"):
            h = h + l2_attention(layer_norm(h, "ln1"), config.heads, config.l2_mode, spectral_weight)[0]
            h = h + mlp(layer_norm(h, "ln2"), config.mlp_ratio, spectral_weight)
    readout = layer_norm(h[:, 0], "ln_out")  # [N, D]
    with tf.variable_scope("head"):
        scores = dense(readout, max(config.c_dim, 1), weights=spectral_weight)  # [N, c_dim or 1]
    if config.c_dim:
        scores = tf.reduce_sum(scores * labels, axis=1, keepdims=True)  # [N, 1]
    return EasyDict(scores=tf.identity(scores, name="scores"))


def embed(config, images):
    """Class token and embedded windows, with their positions: [N, channels, S, S] -> [N, T+1, D]."""
    images = tf.transpose(images, [0, 2, 3, 1])  # [N, S, S, channels]
    images.set_shape([None, config.resolution, config.resolution, config.num_channels])
    windows = overlapping_patches(images, config.patch, config.pad_patches)  # [N, T, (2P)²·channels]
    with tf.variable_scope("patch"):
        tokens = dense(windows, config.dim, weights=spectral_weight)  # [N, T, D]
    first = variables.get_variable("cls", [config.dim], init=variables.normal())
    first = tf.tile(first[tf.newaxis, tf.newaxis], tf.stack([tf.shape(images)[0], 1, 1]))  # [N, 1, D]
    positions = position_embedding(config.windows, config.dim, config.positions)  # [T, D]
    with tf.variable_scope("pos"):
        first_position = tf.sin(variables.get_variable("cls", [config.dim], init=variables.normal()))
    return tf.concat([first, tokens], axis=1) + tf.concat([first_position[tf.newaxis], positions], axis=0)
