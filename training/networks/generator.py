"""The generator: mapping, mixing, truncation, synthesis (Karras et al. 2020; GANformer, section 3.2).

Letters: N batch, k region latents, K all latents, L number of w, H W height and width, h heads.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

from dnnlib import EasyDict
from dnnlib.tflib import variables
from training.networks.layers import Context
from training.networks.mapping import mapping
from training.networks.positional import latent_positions
from training.networks.synthesis import synthesis

W_AVG_DECAY = 0.995


def generator(
    config, z, labels, training=False, streams=None, noise_mode="const", truncation_psi=None, truncation_cutoff=None, half=None
):
    """Latents -> images.

    Args:
        config: GeneratorConfig.
        z: [N, K, z_dim], N(0, 1).
        labels: [N, c_dim].
        training: mixing, dropout and the moving average of w are on.
        streams: random streams for training and for noise_mode "random".
        noise_mode: random, const (the stored arrays) or none.
        truncation_psi: w = average + ψ·(w − average); None for no truncation.
        truncation_cutoff: number of layers that are truncated; None for all.
        half: 16-bit type for the four highest resolutions; None for float32 everywhere.

    Returns:
        EasyDict: images [N, channels, H, W], roughly in [−1, 1], maps [N, k, layers, h, H, W], ws [N, K, L, w_dim] (as used),
        updates (pairs of variable and next value, for a training step).
    """
    ctx = Context(training, streams, half)
    positions = latent_positions(config.components_num, config.w_dim, config.pos_init)  # [k, w_dim]
    average = average_w(config.w_dim)
    mask = _component_mask(config, z, ctx)
    ws = mapping(config, z, labels, positions, ctx, mask)  # [N, K, L, w_dim]
    if training:
        ctx.updates.append((average, moved_average(average, ws)))
        ws = _mix(config, ws, labels, positions, ctx, mask)
    ws = truncate(ws, average, truncation_psi, truncation_cutoff)
    ws = tf.identity(ws, name="ws")  # one tensor that path length regularization can differentiate by
    latent_pos = positions if config.use_pos else None
    images, maps = synthesis(config, ws, latent_pos, ctx, noise_mode, mask)
    return EasyDict(images=images, maps=maps, ws=ws, updates=ctx.updates)


def generator_mapping(config, z, labels, truncation_psi=None, truncation_cutoff=None):
    """The mapping alone: EasyDict with ws [N, K, L, w_dim]. Arguments as in `generator`."""
    positions = latent_positions(config.components_num, config.w_dim, config.pos_init)
    ws = mapping(config, z, labels, positions, Context())
    return EasyDict(ws=truncate(ws, average_w(config.w_dim), truncation_psi, truncation_cutoff))


def generator_synthesis(config, ws, streams=None, noise_mode="const"):
    """The synthesis alone: EasyDict with images and maps of ws [N, K, L, w_dim]."""
    positions = latent_positions(config.components_num, config.w_dim, config.pos_init)
    images, maps = synthesis(config, ws, positions if config.use_pos else None, Context(streams=streams), noise_mode)
    return EasyDict(images=images, maps=maps)


def _component_mask(config, z, ctx):
    """Random mask of region latents in training: [N, 1, k], 0 for dropped ones; None if nothing is ever dropped."""
    if not (ctx.training and config.component_dropout and config.transformer):
        return None
    shape = tf.stack([tf.shape(z)[0], 1, config.components_num])
    return tf.floor(1.0 - config.component_dropout + ctx.streams.uniform("component_dropout", shape))


def _mix(config, ws, labels, positions, ctx, mask):
    """Style mixing over layers and component mixing over latents (Karras et al. 2019, section 3.1): each with fresh latents."""
    kinds = [("style_mixing", config.style_mixing, 2), ("component_mixing", config.component_mixing, 1)]
    for name, probability, axis in kinds:
        count = ws.shape.as_list()[axis]
        if not probability or count < 2:
            continue
        streams = ctx.streams.child(name)
        n = tf.shape(ws)[0]
        z = streams.normal("z", tf.stack([n, config.inputs_num, config.z_dim]))
        z.set_shape([None, config.inputs_num, config.z_dim])
        other = mapping(config, z, labels, positions, Context(ctx.training, streams), mask)  # [N, K, L, w_dim]
        draws = streams.uniform("cut", tf.stack([n, 2]))  # [N, 2]
        cut = 1.0 + tf.floor(draws[:, 0] * (count - 1))  # [N], in [1, count)
        cut = tf.where(draws[:, 1] < probability, cut, tf.fill([n], float(count)))
        shape = [1, 1, 1, 1]
        shape[axis] = count
        index = tf.reshape(tf.range(count, dtype=tf.float32), shape)
        keep = tf.cast(index < cut[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.float32)
        ws = ws * keep + other * (1.0 - keep)  # [N, K, L, w_dim]
    return ws


def average_w(width):
    """The stored average of w, which truncation moves towards: variable [width]."""
    return variables.get_variable("dlatent_avg", [width], init=variables.constant(0.0), trainable=False)


def moved_average(average, ws):
    """The next value of the average after a batch of ws [N, K, L, width], not yet mixed: [width]."""
    mean = tf.reduce_mean(ws[:, :, 0], axis=[0, 1])
    return mean + (average - mean) * W_AVG_DECAY


def truncate(ws, average, psi, cutoff):
    """w = average + ψ·(w − average) for the layers below the cutoff, equally for every latent; w itself if ψ is None.

    Args:
        ws: [N, K, L, width].
        average: [width].
        psi, cutoff: truncation_psi and truncation_cutoff as in `generator`.

    Returns:
        Tensor [N, K, L, width].
    """
    if psi is None:
        return ws
    if cutoff is not None:
        layers = tf.range(ws.shape.as_list()[2])
        ones = tf.ones(tf.shape(layers))
        psi = tf.where(layers < cutoff, ones * tf.cast(psi, tf.float32), ones)[:, tf.newaxis]  # [L, 1]
    return average + (ws - average) * psi
