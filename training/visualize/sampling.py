"""Sampling from a generator by seeds: every image is a function of its own seed, at any batch size.

Letters: n images, K latents, L layers of w, C H W image, k region latents, h heads.
"""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from dnnlib import UserError
from dnnlib.tflib import numpy_stream, registry
from training import images

MAPS_MEMORY = 2**28  # bytes of attention maps held at once


def snapshot_config(record):
    """The typed configuration of a network in a snapshot file, without building it.

    Args:
        record: dnnlib.tflib.snapshot_reader.NetworkRecord.

    Raises:
        UserError: it is not a generator.
    """
    architecture, parse = registry.find_parser(record.build_func_name)
    if "synthesis" not in architecture.parts:
        raise UserError(f"snapshot: its third network is a {architecture.name}, expected a generator")
    return parse(record.static_kwargs)[0]


def require_attention(config, flag):
    """Raise UserError, naming the flag, unless the generator has attention maps."""
    if not config.has_attention:
        raise UserError(f"{flag}: this model has no attention maps, expected a snapshot trained with --transformer, or a ViTGAN")


def picture_ratio(given, config, dataset_ratio=None):
    """Height / width of the image inside its padding: the given ratio, else the snapshot's, else the dataset's, else 1."""
    for ratio in (given, config.crop_ratio, dataset_ratio):
        if ratio is not None:
            return ratio
    return 1.0


class Sampler:
    """A generator with fixed sampling options.

    Args:
        Gs: tflib.Network, a generator.
        ratio: height / width of the image inside its padding.
        truncation_psi: float, ψ in w = average + ψ·(w − average).
        batch_size: images at a time; no image depends on it.
        label_of: function seed -> label [c_dim]; None for a model without labels.
        noise_mode: const (stored with the model), random (a function of the seed) or none.
        quiet: no progress bars, not even on a terminal.
    """

    def __init__(self, Gs, ratio, truncation_psi, batch_size, label_of=None, noise_mode="const", quiet=False):
        self.Gs = Gs
        self._quiet = quiet
        self.ratio = ratio
        self.noise_mode = noise_mode
        self.latents_num = Gs.input_shapes[0][0]  # K
        self._truncation_psi = float(truncation_psi)
        self._batch_size = batch_size
        self._label_of = label_of

    def z(self, seeds):
        """Latents of some seeds: float32 [n, K, z_dim], N(0, 1)."""
        shape = self.Gs.input_shapes[0]
        return np.stack([numpy_stream(seed, "z").standard_normal(shape) for seed in seeds]).astype(np.float32)

    def labels(self, seeds):
        """Labels of some seeds: float32 [n, c_dim], width 0 for a model without labels."""
        if self._label_of is None:
            return np.zeros([len(seeds), 0], np.float32)
        return np.stack([self._label_of(seed) for seed in seeds]).astype(np.float32)

    def ws(self, z, labels):
        """Truncated w of latents [n, K, z_dim] and labels [n, c_dim]: float32 [n, K, L, w_dim]."""
        return self.Gs.run_part("mapping", z, labels, batch_size=self._batch_size, truncation_psi=self._truncation_psi).ws

    def ws_of_seeds(self, seeds):
        """Truncated w of some seeds."""
        return self.ws(self.z(seeds), self.labels(seeds))

    def raw(self, ws, seeds=None, noise_mode=None):
        """Images as the network returns them: float32 [n, C, H, W], roughly in [-1, 1], with their padding.

        Args:
            ws: float32 [n, K, L, w_dim].
            seeds: seeds of the noise, for noise_mode random.
            noise_mode: overrides the sampler's own.
        """
        return self._synthesis(ws, seeds, noise_mode or self.noise_mode).images

    def pictures(self, ws, seeds=None):
        """Images without their padding: uint8 [n, C, H', W]."""
        return images.crop_padding(images.to_uint8(self.raw(ws, seeds)), self.ratio)

    def pictures_and_maps(self, ws, seeds=None):
        """Images, uint8 [n, C, H', W], and their attention maps, float32 [n, k, layers, h, H', W].

        Maps are large: pass at most `maps_batch` latents at once.
        """
        out = self._synthesis(ws, seeds, self.noise_mode, return_maps=True)
        return images.crop_padding(images.to_uint8(out.images), self.ratio), images.crop_padding(out.maps, self.ratio)

    def maps_batch(self):
        """The number of images whose maps may be in memory at once."""
        config = self.Gs.config
        size = 4 * config.maps_num * config.resolution**2
        return int(np.clip(MAPS_MEMORY // size, 1, self._batch_size))

    def bar(self, total, title, unit):
        """A progress bar, shown on terminals only."""
        return tqdm(total=total, desc=title, unit=unit, disable=True if self._quiet else None)

    def batches(self, seeds, progress, size=None):
        """Parts of the list of seeds of at most `size` (default: the batch size) each; moves the progress bar `progress`."""
        size = size or self._batch_size
        for start in range(0, len(seeds), size):
            part = seeds[start : start + size]
            yield part
            progress.update(len(part))

    def _synthesis(self, ws, seeds, noise_mode, **outputs):
        seeds = np.zeros(len(ws), np.int64) if seeds is None else np.asarray(seeds, np.int64)
        return self.Gs.run_part("synthesis", ws, batch_size=self._batch_size, seeds=seeds, noise_mode=noise_mode, **outputs)


def seeds_of(seed, start, count):
    """Seeds of the samples start .. start + count - 1 of a visualization with `--seed seed`.

    With seed 0, sample i has the seed i: without labels, it is the image that `generate.py --seeds i` makes.
    """
    return [seed * 1000000 + index for index in range(start, start + count)]


def slerp(a, b, t):
    """Spherical interpolation along the last axis, from a (t = 0) to b (t = 1), lengths included.

    Source: Shoemake 1985, "Animating rotation with quaternion curves"; nearly parallel vectors are interpolated linearly.
    """
    unit_a, unit_b = (v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12) for v in (a, b))
    angle = np.arccos(np.clip(np.sum(unit_a * unit_b, axis=-1, keepdims=True), -1.0, 1.0))
    sine = np.sin(angle)
    straight = sine < 1e-6
    safe = np.where(straight, 1.0, sine)
    weight_a = np.where(straight, 1.0 - t, np.sin((1.0 - t) * angle) / safe)
    weight_b = np.where(straight, t, np.sin(t * angle) / safe)
    return (weight_a * a + weight_b * b).astype(np.float32)


def lerp(a, b, t):
    """Linear interpolation from a (t = 0) to b (t = 1)."""
    return ((1.0 - t) * a + t * b).astype(np.float32)
