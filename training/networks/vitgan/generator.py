"""The ViTGAN generator: mapping, transformer blocks, patch head (paper, section 3.3).

Letters: N batch, T = g² tokens, D width of a token, L places where w enters, h heads, P patch side, S image side.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

from dnnlib import EasyDict
from training.networks.generator import average_w, moved_average, truncate
from training.networks.layers import dense as mapping_dense
from training.networks.mapping import normalize_latents, with_labels
from training.networks.vitgan.attention import dot_attention
from training.networks.vitgan.layers import fourier_features, mlp, position_embedding, self_modulated_norm
from training.networks.vitgan.patches import assemble_patches
from training.networks.vitgan.siren import siren_head


def generator(
    config, z, labels, training=False, streams=None, noise_mode="const", truncation_psi=None, truncation_cutoff=None
):
    """Latents -> images.

    Args:
        config: ViTGANGeneratorConfig.
        z: [N, 1, z_dim], N(0, 1).
        labels: [N, c_dim].
        training: the moving average of w is on.
        streams, noise_mode: accepted as by every generator, and unused: nothing here is random.
        truncation_psi: w = average + ψ·(w − average); None for no truncation.
        truncation_cutoff: number of places, from the first block on, where w is truncated; None for all.

    Returns:
        EasyDict: images [N, channels, S, S], roughly in [−1, 1], maps [N, T, depth, h, S, S], ws [N, 1, L, D] (as used),
        updates (pairs of variable and next value, for a training step).
    """
    average = average_w(config.dim)
    ws = _mapping_of(config, z, labels)  # [N, 1, L, D]
    updates = [(average, moved_average(average, ws))] if training else []
    ws = truncate(ws, average, truncation_psi, truncation_cutoff)
    images, maps = synthesis(config, ws)
    return EasyDict(images=images, maps=maps, ws=ws, updates=updates)


def generator_mapping(config, z, labels, truncation_psi=None, truncation_cutoff=None):
    """The mapping alone: EasyDict with ws [N, 1, L, D]. Arguments as in `generator`."""
    return EasyDict(ws=truncate(_mapping_of(config, z, labels), average_w(config.dim), truncation_psi, truncation_cutoff))


def generator_synthesis(config, ws, streams=None, noise_mode="const"):
    """The synthesis alone: EasyDict with images and maps of ws [N, 1, L, D]."""
    images, maps = synthesis(config, ws)
    return EasyDict(images=images, maps=maps)


def _mapping_of(config, z, labels):
    with tf.variable_scope("map"):
        x = with_labels(z, labels, config.c_dim, config.z_dim) if config.c_dim else z  # [N, 1, z_dim or 2·z_dim]
        w = mapping(x[:, 0], [config.dim] * config.mapping_num_layers, config.mapping_lrmul)  # [N, D]
    return tf.tile(w[:, tf.newaxis, tf.newaxis], [1, 1, config.num_ws, 1])  # [N, 1, L, D]


def mapping(z, widths, lrmul):
    """z -> w: normalization of z, then dense layers, all with a leaky ReLU times √2 (Karras et al. 2019).

    Args:
        z: [N, any].
        widths: list of the widths of the layers.
        lrmul: learning-rate multiplier.

    Returns:
        Tensor [N, widths[-1]].
    """
    x = normalize_latents(z)
    for index, width in enumerate(widths):
        x = mapping_dense(x, width, act="lrelu", lrmul=lrmul, suffix=str(index))
    return x


def synthesis(config, ws):
    """w of every place -> images and attention maps.

    Blocks (paper, eq. 12-14): h' = h + MSA(SLN(h, w)), h = h' + MLP(SLN(h', w)), from h = E_pos, which is the same for every image.

    Args:
        config: ViTGANGeneratorConfig.
        ws: [N, 1, L, D].

    Returns:
        (images [N, channels, S, S], maps [N, T, depth, h, S, S]).
    """
    positions = position_embedding(config.grid, config.dim, config.positions)  # [T, D]
    h = tf.tile(positions[tf.newaxis], tf.stack([tf.shape(ws)[0], 1, 1]))  # [N, T, D]
    probs = []
    for index in range(config.depth):
        with tf.variable_scope(f"block{index}"):
            attended, block_probs = dot_attention(self_modulated_norm(h, ws[:, 0, 2 * index], "sln1"), config.heads)
            h = h + attended  # [N, T, D]
            h = h + mlp(self_modulated_norm(h, ws[:, 0, 2 * index + 1], "sln2"), config.mlp_ratio)  # [N, T, D]
            probs.append(block_probs)
    y = self_modulated_norm(h, ws[:, 0, -1], "sln_out")  # [N, T, D]
    with tf.variable_scope("fou"):
        features = fourier_features(config.patch, config.dim)  # [P², D]
    widths = [config.dim] * (config.siren_layers - 1) + [config.num_channels]
    tokens = tf.reshape(y, [-1, config.dim])  # [N·T, D]
    patches = siren_head(features, tokens, widths, config.siren_w0, config.style, config.demodulate)  # [N·T, P², channels]
    images = assemble_patches(patches, config.grid, config.patch)  # [N, channels, S, S]
    return tf.identity(images, name="images"), _maps(config, probs)


def _maps(config, probs):
    """Attention on the image's grid: maps[n, t, block, head, y, x] is how much the patch at (y, x) attends to token t."""
    side, patch, tokens = config.grid, config.patch, config.grid**2
    maps = tf.transpose(tf.stack(probs, axis=1), [0, 4, 1, 2, 3])  # [N, T, depth, h, from]
    maps = tf.reshape(maps, [-1, side, 1, side, 1])
    maps = tf.tile(maps, [1, 1, patch, 1, patch])
    return tf.reshape(maps, [-1, tokens, config.depth, config.heads, config.resolution, config.resolution])
