"""The visualizations of run_network.py --vis: which ones are asked for, and a function for each.

Letters: n images, K latents, L layers of w, C H W image, k region latents, h heads.
"""

from __future__ import annotations

import contextlib
import json
import os
import re

import numpy as np

from dnnlib import UserError, atomic_output
from dnnlib.files import read_object
from dnnlib.tflib import numpy_stream
from training import command_line, images
from training.visualize import colours, mixing, movies, sampling

KINDS = ("images", "latents", "maps", "layer_maps", "interpolations", "noise_var", "style_mix")
DEFAULT_KINDS = ("images", "latents", "maps", "interpolations", "noise_var")
NOISE_RENDERINGS = 100
NOISE_GAIN = 4
MOVIE_FPS = 8


def asked_kinds(options, config):
    """The visualizations to make: those that flags name, else those of the default set that the model supports.

    Args:
        options: training.command_line.Options.
        config: the generator's configuration.

    Raises:
        UserError: a flag asks for the maps of a model without attention, or for the noise of one that has none.
    """
    asked = _asked(options)
    for kind in ("maps", "layer_maps"):
        if kind in asked:
            sampling.require_attention(config, f"--vis-{kind.replace('_', '-')}")
    if "noise_var" in asked and not config.local_noise:
        raise UserError("--vis-noise-var: this model has no noise")
    return asked or [kind for kind in DEFAULT_KINDS if kind not in _missing(config)]


def _asked(options):
    return [kind for kind in KINDS if getattr(options, f"vis_{kind}")]


def _missing(config):
    """What a model cannot show: dict kind of visualization -> what it lacks."""
    has = {"maps": ("attention to latents", config.has_attention), "noise_var": ("noise", config.local_noise)}
    return {kind: what for kind, (what, there) in has.items() if not there}


def check(record, dataset, options):
    """Check everything about --vis that can be checked before the network is built.

    Args:
        record: NetworkRecord of Gs.
        dataset: training.dataset.Dataset.
        options: training.command_line.Options.

    Raises:
        UserError: the model has no attention, or the dataset has other labels.
    """
    config = sampling.snapshot_config(record)
    asked_kinds(options, config)
    classes = dataset.labels.shape[1]
    if config.c_dim and classes != config.c_dim:
        raise UserError(f"--dataset {dataset.name}: its labels have width {classes}, the snapshot was trained with width {config.c_dim}")


def run(Gs, dataset, options, folder, quiet=False, with_movies=True, shown=None):
    """Make the visualizations that the options ask for.

    Args:
        Gs: tflib.Network, the generator.
        dataset: training.dataset.Dataset, for ratio and labels.
        options: training.command_line.Options.
        folder: where the results are written.
        quiet: print nothing.
        with_movies: write interpolations as GIF and MP4 too, not only as strips.
        shown: number of images shown to the networks so far, for the report; None if unknown.
    """
    kinds = asked_kinds(options, Gs.config)
    _update_about(folder, kinds, {})  # if this call fails, its files must not pass for those of the earlier one
    sampler = sampling.Sampler(
        Gs,
        ratio=sampling.picture_ratio(options.ratio, Gs.config, dataset.ratio),
        truncation_psi=options.truncation_psi,
        batch_size=min(command_line.eval_batch_gpu(options), options.vis_section_size),
        label_of=_label_source(dataset) if Gs.config.c_dim else None,
        quiet=quiet,
    )
    per_sample = [kind for kind in kinds if kind in ("images", "latents", "maps", "layer_maps")]
    if per_sample:
        _Samples(sampler, options, folder, per_sample).run()
    if "interpolations" in kinds:
        interpolations(sampler, options, folder, with_movies)
    if "noise_var" in kinds:
        noise_variation(sampler, options, folder)
    if "style_mix" in kinds:
        mixing.tables(sampler, options.seed, folder)
    _write_about(Gs, options, kinds, folder, shown)
    if not quiet:
        missing = {} if _asked(options) else _missing(Gs.config)
        left_out = "".join(f"; this model has no {what}: no {kind}" for kind, what in missing.items())
        print(f"visualizations ({', '.join(kinds)}) in {folder}{left_out}")


def _write_about(Gs, options, kinds, folder, shown):
    """Record in about.json what was made, for the report."""
    made = {"seed": options.seed, "truncation_psi": options.truncation_psi, "images": shown}
    about = dict.fromkeys(kinds, made)
    if "layer_maps" in kinds:
        config = Gs.config
        hues = colours.palette(config.components_num).tolist()
        about["layer_maps"] = {**made, "grids": config.attention_grids, "attended": config.map_unit, "colours": hues}
    _update_about(folder, kinds, about)


def _update_about(folder, kinds, about):
    """Replace the entries of some visualizations in about.json by those of `about`, dict kind -> dict."""
    path = os.path.join(folder, "about.json")
    kept = {kind: made for kind, made in read_object(path).items() if kind in KINDS and kind not in kinds}
    with atomic_output(path, "w") as file:
        json.dump({**kept, **about}, file)


def _label_source(dataset):
    """Function seed -> a label of the dataset."""
    return lambda seed: dataset.labels[numpy_stream(seed, "label").randint(len(dataset.labels))]


def empty_folder(folder, pattern):
    """Make a folder; remove files of an earlier call from it whose relative paths match `pattern` (a regular expression)."""
    os.makedirs(folder, exist_ok=True)
    for inside, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(inside, name)
            if re.fullmatch(pattern, os.path.relpath(path, folder).replace(os.sep, "/")):
                os.remove(path)


class _Samples:
    """What is made of every sample: images, latents, maps. One pass, section by section."""

    FOLDERS = {"images": ("images",), "latents": ("latents-z", "latents-w"), "maps": ("maps", "softmaps", "blends", "softblends")}

    def __init__(self, sampler, options, folder, kinds):
        self.sampler = sampler
        self.options = options
        self.folder = folder
        self.kinds = kinds
        self.needs_maps = "maps" in kinds or "layer_maps" in kinds
        self.cells = []

    def run(self):
        options = self.options
        for kind in self.kinds:
            for name in self.FOLDERS.get(kind, ()):
                empty_folder(os.path.join(self.folder, name), r"\d{6,}\.(png|npy)")
        if "images" in self.kinds:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.folder, "images-grid.png"))
        if "layer_maps" in self.kinds:
            empty_folder(os.path.join(self.folder, "layer_maps"), r"\d{6,}/(image|l\d+_h\d+)\.png")
        count = options.vis_num if set(self.kinds) != {"layer_maps"} else min(options.vis_num, options.vis_rich_num)
        with self.sampler.bar(count, "samples", "img") as progress:
            for start in range(0, count, options.vis_section_size):
                self._section(start, min(options.vis_section_size, count - start), progress)
        if self.cells:
            columns = int(np.ceil(np.sqrt(len(self.cells))))
            images.save_png(images.make_grid(np.stack(self.cells), columns), os.path.join(self.folder, "images-grid.png"))

    def _section(self, start, count, progress):
        seeds = sampling.seeds_of(self.options.seed, start, count)
        z, labels = self.sampler.z(seeds), self.sampler.labels(seeds)
        ws = self.sampler.ws(z, labels)  # [n, K, L, w_dim]
        if "latents" in self.kinds:
            for row in range(count):
                self._save_array("latents-z", start + row, z[row])
                self._save_array("latents-w", start + row, ws[row, :, 0])
        if not self.needs_maps and "images" not in self.kinds:
            progress.update(count)
            return
        size = self.sampler.maps_batch() if self.needs_maps else None
        for rows in self.sampler.batches(range(count), progress, size):
            self._batch([start + row for row in rows], ws[rows[0] : rows[-1] + 1], [seeds[row] for row in rows])

    def _batch(self, indices, ws, seeds):
        if not self.needs_maps or "maps" not in self.kinds and indices[0] >= self.options.vis_rich_num:
            pictures, maps = self.sampler.pictures(ws, seeds), [None] * len(indices)
        else:
            pictures, maps = self.sampler.pictures_and_maps(ws, seeds)
        for index, picture, own_maps in zip(indices, pictures, maps):
            if "images" in self.kinds and self.options.vis_grid:
                self.cells.append(picture)
            elif "images" in self.kinds:
                self._save("images", index, picture)
            if "maps" in self.kinds:
                self._save_maps(index, picture, own_maps[:, -1, 0])
            if "layer_maps" in self.kinds and index < self.options.vis_rich_num:
                self._save_layer_maps(index, picture, own_maps)

    def _save_maps(self, index, picture, maps):
        """Save the maps [k, H, W] of the last layer and first head."""
        alpha = self.options.blending_alpha
        for name, blended, colouring in (("maps", "blends", colours.segmentation), ("softmaps", "softblends", colours.mixture)):
            coloured = colouring(maps)  # [3, H, W]
            self._save(name, index, coloured)
            self._save(blended, index, colours.blend(picture, coloured, alpha))

    def _save_layer_maps(self, index, picture, maps):
        """Save the maps [k, layers, h, H, W] of one sample, and its image."""
        folder = os.path.join(self.folder, "layer_maps", f"{index:06d}")
        images.save_png(picture, os.path.join(folder, "image.png"))
        for layer in range(maps.shape[1]):
            for head in range(maps.shape[2]):
                images.save_png(colours.segmentation(maps[:, layer, head]), os.path.join(folder, f"l{layer}_h{head}.png"))

    def _save(self, name, index, picture):
        images.save_png(picture, os.path.join(self.folder, name, f"{index:06d}.png"))

    def _save_array(self, name, index, array):
        with atomic_output(os.path.join(self.folder, name, f"{index:06d}.npy")) as file:
            np.save(file, array)


def interpolations(sampler, options, folder, with_movies=True):
    """Interpolate from sample i to sample i + 1, spherically in z and linearly in w; all components together, or one at a time.

    Writes all.png and all.gif (and all.mp4) in interpolations-z/%06d/ and interpolations-w/%06d/, or component_%02d.* instead of all.*.
    """
    parts = [("all", slice(None))]
    if options.interpolation_per_component:
        parts = [(f"component_{index:02d}", slice(index, index + 1)) for index in range(sampler.latents_num)]
    count = options.vis_rich_num
    for space in ("z", "w"):
        empty_folder(os.path.join(folder, f"interpolations-{space}"), r"\d{6,}/(all|component_\d+)\.(png|gif|mp4)")
    with sampler.bar(2 * count * len(parts), "interpolations", "strip") as progress:
        for index in range(count):
            seeds = sampling.seeds_of(options.seed, index, 2)
            z, labels = sampler.z(seeds), sampler.labels(seeds)
            ws = sampler.ws(z, labels)
            for space in ("z", "w"):
                target = os.path.join(folder, f"interpolations-{space}", f"{index:06d}")
                os.makedirs(target, exist_ok=True)
                for name, components in parts:
                    steps = np.linspace(0, 1, options.interpolation_density + 2)
                    if space == "z":
                        path = sampler.ws(*z_path(z, labels, steps, components))
                    else:
                        path = np.stack([_moved(ws, components, sampling.lerp, t) for t in steps])
                    frames = sampler.pictures(path)  # [steps, C, H, W]
                    images.save_png(images.make_grid(frames, len(frames)), os.path.join(target, f"{name}.png"))
                    if with_movies:
                        movies.save_movie(frames, os.path.join(target, name), MOVIE_FPS)
                    progress.update(1)


def z_path(z, labels, steps, components=slice(None)):
    """Latents and labels on the path from z[0] to z[1].

    Args:
        z: [2, K, z_dim].
        labels: [2, c_dim].
        steps: numbers from 0 to 1.
        components: slice of the latents that move; the others stay at z[0].

    Returns:
        ([steps, K, z_dim], [steps, c_dim]); the labels move linearly, and only if all components do.
    """
    whole = components == slice(None)
    path = np.stack([_moved(z, components, sampling.slerp, t) for t in steps])
    return path, np.stack([sampling.lerp(labels[0], labels[1], t) if whole else labels[0] for t in steps])


def _moved(pair, components, interpolate, t):
    latents = pair[0].copy()
    latents[components] = interpolate(pair[0][components], pair[1][components], t)
    return latents


def noise_variation(sampler, options, folder):
    """Show where the noise acts: standard deviation, over renderings of one latent, of the mean over channels (0..255), times 4.

    Writes noise-variance.png (gray; white is a deviation of 64 or more).
    """
    seed = sampling.seeds_of(options.seed, 0, 1)
    ws = sampler.ws_of_seeds(seed)  # [1, K, L, w_dim]
    first, total, squares = None, 0.0, 0.0
    with sampler.bar(NOISE_RENDERINGS, "noise variation", "img") as progress:
        for rows in sampler.batches(range(NOISE_RENDERINGS), progress):
            raw = sampler.raw(np.repeat(ws, len(rows), axis=0), seeds=rows, noise_mode="random")
            gray = np.clip(raw, -1, 1).mean(axis=1, dtype=np.float64) * 127.5  # [n, H, W]
            first = gray[0] if first is None else first
            total = total + (gray - first).sum(axis=0)  # differences from the first one: no cancellation
            squares = squares + np.square(gray - first).sum(axis=0)
    mean = total / NOISE_RENDERINGS
    deviation = np.sqrt(squares / NOISE_RENDERINGS - mean**2)  # [H, W]; not below 0, since one of the differences is 0
    picture = np.clip(np.floor(deviation * NOISE_GAIN), 0, 255).astype(np.uint8)
    images.save_png(images.crop_padding(picture[np.newaxis], sampler.ratio), os.path.join(folder, "noise-variance.png"))
