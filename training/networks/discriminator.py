"""The discriminator (Karras et al. 2020; GANformer, section 3.2).

Letters: N batch, k aggregators, H W height and width, C channels.
"""

from __future__ import annotations

import tensorflow.compat.v1 as tf

import ops
from dnnlib import EasyDict
from dnnlib.tflib import variables
from training.networks.attention import attention_layer, layer_arguments, residual_attention_block
from training.networks.layers import Context, conv_bias_act, conv_weight, dense, flatten_nchw, minibatch_stddev, residual_sum
from training.networks.positional import latent_positions, pyramid_positions


def discriminator(config, images, labels, training=False, streams=None, half=None):
    """Images -> scores.

    Args:
        config: DiscriminatorConfig.
        images: [N, channels, H, W] in [−1, 1]; N is a multiple of min(mbstd_group_size, N).
        labels: [N, c_dim].
        training: attention dropout is on.
        streams: random streams for training.
        half: 16-bit type for the four highest resolutions; None for float32 everywhere.

    Returns:
        EasyDict: scores [N, 1].
    """
    return _Discriminator(config, Context(training, streams, half)).run(images, labels)


class _Discriminator:
    """One construction of the discriminator: the state that is passed from block to block."""

    def __init__(self, config, ctx):
        self.config = config
        self.ctx = ctx
        self.aggregators = None  # [N, k, dim]
        self.latent_pos = None
        self.grid_pos = {}

    def run(self, images, labels):
        """Scores of images [N, channels, H, W] with labels [N, c_dim]: see `discriminator`."""
        config = self.config
        y = tf.transpose(images, [0, 2, 3, 1])  # [N, H, W, channels]
        y.set_shape([None] + list(config.grid(config.resolution_log2)) + [config.num_channels])
        self._start_attention(tf.shape(y)[0])
        x = None
        for r in config.scales:
            with tf.variable_scope(f"{2**r}x{2**r}"), self.ctx.arithmetic(config, r) as dtype:
                x = self._from_rgb(x, y, r, dtype)
                x = self._block(x, r)
            if config.architecture == "skip":
                y = ops.downsample_2d(y, config.resample_kernel)
        with tf.variable_scope("4x4"):
            x = self._from_rgb(x, y, 2, tf.float32)
            x = minibatch_stddev(x, config.mbstd_group_size)  # [N, H, W, C+1]
            with tf.variable_scope("Conv"):
                x = conv_bias_act(x, config.channels(2), 3)  # [N, H, W, C]
            with tf.variable_scope("Dense0"):
                x = dense(flatten_nchw(x), config.channels(1), act="lrelu")  # [N, C]
        if config.transformer:
            x = tf.concat([x, self._component_scores()], axis=-1)  # [N, C+k]
        with tf.variable_scope("Output"):
            scores = dense(x, max(config.c_dim, 1))  # [N, c_dim or 1]
        if config.c_dim:
            scores = tf.reduce_sum(scores * labels, axis=1, keepdims=True)  # [N, 1]
        return EasyDict(scores=tf.identity(scores, name="scores"))

    def _start_attention(self, samples):
        config = self.config
        self.grid_pos = pyramid_positions(config)
        if not config.transformer:
            return
        if config.use_pos:
            self.latent_pos = latent_positions(config.components_num, config.a_dim, config.pos_init)
        stored = variables.get_variable("aggregators", [config.components_num, config.a_dim], init=variables.uniform())
        self.aggregators = tf.tile(stored[tf.newaxis], tf.stack([samples, 1, 1]))  # [N, k, dim]

    def _from_rgb(self, x, y, r, dtype):
        """Features of scale r [N, H, W, C], from the image y [N, H, W, channels] and the features x so far, None at first."""
        if x is not None and self.config.architecture != "skip":
            return tf.cast(x, dtype)
        with tf.variable_scope("FromRGB"):
            t = conv_bias_act(tf.cast(y, dtype), self.config.channels(r), 1)
        return t if x is None else tf.cast(x, dtype) + t

    def _block(self, x, r):
        """Features of the scale below from those of scale r: [N, H, W, C] -> [N, H/2, W/2, C']."""
        config = self.config
        shortcut = x
        if config.any_attention(r):
            x = self._attend(x, r)
        with tf.variable_scope("Conv0"):
            x = conv_bias_act(x, config.channels(r), 3)
        with tf.variable_scope("Conv1_down"):
            x = conv_bias_act(x, config.channels(r - 1), 3, down=True, taps=config.resample_kernel)
        if config.architecture != "resnet":
            return x
        with tf.variable_scope("Skip"):
            w = conv_weight(shortcut, config.channels(r - 1), 1)
            shortcut = ops.conv_downsample_2d(shortcut, w, config.resample_kernel)
        return residual_sum(x, shortcut)

    def _attend(self, x, r):
        """The aggregators attend to the grid (n2l), the grid to them (l2n), they to each other (l2l), and the grid to itself (n2n)."""
        config, ctx = self.config, self.ctx.child(f"block{r}")
        height, width, channels = x.shape.as_list()[1:]
        rows = tf.cast(tf.reshape(x, [-1, height * width, channels]), tf.float32)  # [N, H·W, C]
        if config.attends(r):
            self.aggregators = attention_layer(self.aggregators, rows, ctx, **self._layer_of("n2l", r)).x
            if config.ltnt2img:
                rows = attention_layer(rows, self.aggregators, ctx, **self._layer_of("l2n", r)).x
            if config.ltnt2ltnt:
                self.aggregators = residual_attention_block(self.aggregators, self.aggregators, ctx, **self._layer_of("l2l", r))
        if r == config.img2img:
            rows = attention_layer(rows, rows, ctx, **self._layer_of("n2n", r)).x
        return tf.cast(tf.reshape(rows, [-1, height, width, channels]), x.dtype)

    def _layer_of(self, kind, r):
        return {"name": kind, **layer_arguments(kind, self.config, self.latent_pos, self.grid_pos[r])}

    def _component_scores(self):
        """One score per aggregator: [N, k]."""
        with tf.variable_scope("ComponentScores"):
            x = minibatch_stddev(self.aggregators, self.config.mbstd_group_size)  # [N, k, dim+1]
            with tf.variable_scope("Dense"):
                x = dense(x, self.config.a_dim, act="lrelu")  # [N, k, dim]
            with tf.variable_scope("Output"):
                return dense(x, 1)[..., 0]  # [N, k]
