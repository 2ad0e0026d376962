"""Synthesis network: w -> images and attention maps (Karras et al. 2020; GANformer, section 3.2).

Letters: N batch (N·k in k-GAN below the merge), k region latents, K all latents, L number of w, H W height and width, C channels, h heads.
"""

from __future__ import annotations

import numpy as np
import tensorflow.compat.v1 as tf

import ops
from dnnlib import tflib
from dnnlib.tflib import variables
from training.networks.attention import attention_layer, layer_arguments, residual_attention_block
from training.networks.layers import bias, bias_act, conv_weight, residual_sum, weight
from training.networks.merge import merge_images
from training.networks.positional import pyramid_positions


def synthesis(config, ws, latent_pos, ctx, noise_mode, mask=None):
    """Images and attention maps of intermediate latents, in scope G_synthesis.

    Args:
        config: GeneratorConfig.
        ws: [N, K, L, w_dim].
        latent_pos: positions of the region latents [k, w_dim], or None.
        ctx: Context of the call.
        noise_mode: "random" (needs ctx.streams), "const" (the stored arrays) or "none".
        mask: [N, 1, k], 1 for present components; or None.

    Returns:
        (images [N, channels, H, W], maps [N, k, layers, h, H, W]).
    """
    if noise_mode not in ("random", "const", "none"):
        raise ValueError(f"noise_mode: got {noise_mode!r}, expected random, const or none")
    with tf.variable_scope("G_synthesis"):
        return _Synthesis(config, ws, latent_pos, ctx, noise_mode, mask).run()


class _Synthesis:
    """One construction of the synthesis: the state that is passed from layer to layer."""

    def __init__(self, config, ws, latent_pos, ctx, noise_mode, mask):
        self.config = config
        self.ctx = ctx
        self.noise_mode = noise_mode
        self.mask = mask
        self.ws = ws  # [N, K, L, w_dim]
        self.samples = tf.shape(ws)[0]
        self.images_num = config.components_num if config.merge else 1  # images per sample, k before k-GAN's merge
        self.latents = None  # region latents [N, k, w_dim], after a layer has updated them
        self.assignments = None  # k-means state [N, h, T, F]
        self.latent_pos = latent_pos
        self.grid_pos = pyramid_positions(config)
        self.noises = self._noise_arrays()
        self.probs = []  # (attention [N, h, F, k], grid) of every layer
        self.fused = config.fused_modconv and tflib.devices()[0].startswith("/gpu")

    def run(self):
        """Images [N, channels, H, W] and attention maps [N, k, layers, h, H, W]."""
        x, y = self._stem(), None
        for r in self.config.scales:
            with tf.variable_scope(f"{2**r}x{2**r}"), self.ctx.arithmetic(self.config, r) as dtype:
                x = self._layer(x, r, "Conv", 0) if r == 2 else self._block(tf.cast(x, dtype), r)
                if y is not None:
                    y = ops.upsample_2d(y, self.config.resample_kernel)
                if self.config.merge and r == self._merge_scale:
                    x, y, self.ws = merge_images(
                        tf.cast(x, tf.float32), y, self.ws, r, self.config.components_num, self.config.merge_type, self.config.merge_same
                    )
                    self.images_num = 1
                last = r == self.config.resolution_log2
                if last or self.config.architecture == "skip":
                    rgb = tf.cast(self._to_rgb(x, r, last), tf.float32)
                    y = rgb if y is None else y + rgb
        images = tf.transpose(tf.tanh(y) if self.config.tanh else y, [0, 3, 1, 2])
        return tf.identity(images, name="images"), self._maps()

    @property
    def _merge_scale(self):
        return self.config.resolution_log2 if self.config.merge_layer == -1 else self.config.merge_layer

    def _noise_arrays(self):
        """Stored noise of every layer [rows, 1, H, W]; the last array, of twice the resolution, belongs to no layer."""
        config = self.config
        arrays = []
        for index in range(config.num_ws - 1):
            r = (index + 5) // 2
            rows = config.components_num if config.merge and (config.merge_layer == -1 or r < config.merge_layer) else 1
            shape = [rows, 1] + list(config.grid(r))
            arrays.append(variables.get_variable(f"noise{index}", shape, init=variables.normal(), trainable=False))
        return arrays

    def _style(self, index):
        """The modulating latent at w index `index`, with the transformer the global one, else the first: [N, w_dim]."""
        if self.images_num > 1:
            return tf.reshape(self.ws[:, :, index], [-1, self.config.w_dim])  # [N·k, w_dim]
        return self.ws[:, -1 if self.config.transformer else 0, index]

    def _stem(self):
        config = self.config
        channels, (height, width) = config.channels(2), config.grid(2)
        with tf.variable_scope("4x4"):
            if not config.latent_stem:
                with tf.variable_scope("Const"):
                    shape = [self.images_num, channels, height, width]
                    const = variables.get_variable("const", shape, init=variables.normal())
                x = tf.transpose(const, [0, 2, 3, 1])  # [1 or k, H, W, C]
                return tf.tile(x, tf.stack([self.samples, 1, 1, 1]))  # [N, H, W, C]
            with tf.variable_scope("Dense"):
                w = weight([config.w_dim, height * width * channels], gain=np.sqrt(2) / 4)
                x = tf.reshape(tf.matmul(self._style(0), w), [-1, channels, height, width])  # [N, C, H, W]
                x = tf.transpose(x, [0, 2, 3, 1])  # [N, H, W, C]
                return self._noise_bias_act(x, 0, "stem")  # [N, H, W, C]

    def _block(self, x, r):
        """Features of scale r from those of the scale below: [N, H/2, W/2, C'] -> [N, H, W, C]."""
        shortcut = x
        x = self._layer(x, r, "Conv0_up", 2 * r - 5, up=True)
        x = self._layer(x, r, "Conv1", 2 * r - 4)
        if self.config.architecture != "resnet":
            return x
        with tf.variable_scope("Skip"):
            w = conv_weight(shortcut, self.config.channels(r), 1)
            shortcut = ops.upsample_conv_2d(shortcut, w, self.config.resample_kernel)
        return residual_sum(x, shortcut)

    def _layer(self, x, r, name, index, up=False):
        """Modulated convolution, attention, noise, bias, activation."""
        to_latents, to_pixels = self.config.attends(r), r == self.config.img2img
        with tf.variable_scope(name):
            x, scale = self._modulated_conv(x, self.config.channels(r), 3, index + 1, up=up)  # [N, H, W, C]
            if to_latents or to_pixels:
                x, scale = ops.scale_channels(x, scale), None
            if to_latents:
                x = self._attend_to_latents(x, r, index)  # [N, H, W, C]
            if to_pixels:
                x = self._attend_to_pixels(x, r, index)  # [N, H, W, C]
            return self._noise_bias_act(x, index, f"layer{index}", scale)

    def _modulated_conv(self, x, channels, kernel, w_index, up=False, demodulate=True):
        """Convolved features [N, H, W, O], and factors that are still to be applied to them [N, O], or None."""
        w = conv_weight(x, channels, kernel)
        width = x.shape.as_list()[-1]
        scales = self._modulation(width, w_index)  # [N, I]
        taps = self.config.resample_kernel
        if self.config.style:
            return ops.modulated_conv_2d(x, w, scales, demodulate=demodulate, up=up, taps=taps, fused=self.fused)
        return (ops.upsample_conv_2d(x, w, taps) if up else ops.conv_2d(x, w)), None

    def _modulation(self, width, w_index):
        """Scales of the input channels from the modulating latent, [N, width]: a dense layer (mod_weight, mod_bias) plus 1."""
        style = self._style(w_index)
        w = weight([self.config.w_dim, width], name="mod_weight")
        return tf.matmul(style, w) + bias(width, name="mod_bias") + 1.0

    def _noise_bias_act(self, x, index, name, scale=None):
        noise = None
        if self.config.local_noise:
            strength = variables.get_variable("noise_strength", [], init=variables.constant(0.0))
            if self.noise_mode != "none":
                noise = self._noise(x, index, name) * strength  # [1 or N, H, W, 1]
        return bias_act(x, "lrelu", scale, noise)

    def _noise(self, x, index, name):
        """Noise for features x [N, H, W, C]: [N, H, W, 1], or [1, H, W, 1] if every image has the same."""
        height, width = x.shape.as_list()[1:3]
        if self.noise_mode == "random":
            shape = tf.stack([self.samples, self.images_num, height, width])
            return tf.reshape(self.ctx.streams.normal(f"noise/{name}", shape), [-1, height, width, 1])  # [N, H, W, 1]
        stored = tf.transpose(self.noises[index], [0, 2, 3, 1])  # [1 or k, H, W, 1]
        return tf.tile(stored, tf.stack([self.samples, 1, 1, 1])) if stored.shape.as_list()[0] > 1 else stored

    def _layer_of(self, kind, r, duplex=False):
        """Arguments of an attention layer at scale r; `duplex` for the one in which latents control the grid."""
        return {"name": kind, **layer_arguments(kind, self.config, self.latent_pos, self.grid_pos[r], self.mask, duplex)}

    def _attend_to_latents(self, x, r, index):
        """The latents control the grid (l2n); then, if configured, they attend to each other (l2l) and to the grid (n2l)."""
        config, ctx = self.config, self.ctx.child(f"layer{index}")
        grid = config.grid(r)
        latents = self.ws[:, : config.components_num, index + 1] if self.latents is None else self.latents  # [N, k, w_dim]
        rows = _to_rows(x)  # [N, H·W, C]
        carried = self._carried_assignments(grid)
        result = attention_layer(rows, latents, ctx, assignments=carried, **self._layer_of("l2n", r, duplex=True))
        self.assignments = (result.assignments, grid) if config.iterative and config.kmeans else None
        self.probs.append((result.probs, grid))
        if config.ltnt2ltnt:
            latents = residual_attention_block(latents, latents, ctx, **self._layer_of("l2l", r))
        if config.img2ltnt:
            latents = residual_attention_block(latents, result.x, ctx, **self._layer_of("n2l", r))
        if config.ltnt2ltnt or config.img2ltnt:
            self.latents = latents
        return tf.cast(tf.reshape(result.x, tf.shape(x)), x.dtype)

    def _carried_assignments(self, grid):
        """Assignments of the previous attention layer on this layer's grid, each cell copied to the cells it was upsampled to."""
        if self.assignments is None:
            return None
        assignments, (height, width) = self.assignments
        _, heads, tokens, _ = assignments.shape.as_list()
        maps = tf.reshape(assignments, [-1, heads * tokens, height, width])  # [N, h·T, H, W]
        maps = _repeat(maps, grid[0] // height, grid[1] // width)
        return tf.reshape(maps, [-1, heads, tokens, grid[0] * grid[1]])  # [N, h, T, F]

    def _attend_to_pixels(self, x, r, index):
        rows = _to_rows(x)
        result = attention_layer(rows, rows, self.ctx.child(f"layer{index}"), **self._layer_of("n2n", r))
        return tf.cast(tf.reshape(result.x, tf.shape(x)), x.dtype)

    def _to_rgb(self, x, r, last):
        with tf.variable_scope("ToRGB"):
            if last and self.config.transformer and r <= self.config.end_res:
                with tf.variable_scope("extraLayer"):
                    x = ops.scale_channels(*self._modulated_conv(x, self.config.channels(r), 3, 2 * r - 3))
            y, _ = self._modulated_conv(x, self.config.num_channels, 1, 2 * r - 2, demodulate=False)
            return ops.fused_bias_act(y, bias(self.config.num_channels))  # [N, H, W, channels]

    def _maps(self):
        """Attention of every layer, upsampled to the output's grid: [N, k, layers, h, H, W]."""
        height, width = self.config.grid(self.config.resolution_log2)
        if not self.probs:
            return tf.zeros(tf.stack([self.samples, 0, 0, 0, height, width]))
        maps = []
        for probs, grid in self.probs:
            _, heads, _, tokens = probs.shape.as_list()
            layer = tf.reshape(tf.transpose(probs, [0, 3, 1, 2]), [-1, tokens * heads] + list(grid))  # [N, k·h, H', W']
            layer = _repeat(layer, height // grid[0], width // grid[1])  # [N, k·h, H, W]
            maps.append(tf.reshape(layer, [-1, tokens, heads, height, width]))
        return tf.stack(maps, axis=2)


def _to_rows(x):
    """[N, H, W, C] -> float32 [N, H·W, C], for attention."""
    _, height, width, channels = x.shape.as_list()
    return tf.cast(tf.reshape(x, [-1, height * width, channels]), tf.float32)


def _repeat(x, vertical, horizontal):
    """Box upsampling of [N, M, H, W] by integer factors."""
    _, count, height, width = x.shape.as_list()
    x = tf.tile(x[:, :, :, tf.newaxis, :, tf.newaxis], [1, 1, 1, vertical, 1, horizontal])
    return tf.reshape(x, [-1, count, height * vertical, width * horizontal])
