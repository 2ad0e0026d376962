"""Images of a training: reals, and samples of the same latents over time."""

from __future__ import annotations

import os

import numpy as np

from dnnlib import tflib
from dnnlib.runs import numbered_files
from dnnlib.tflib import numpy_stream
from training import images
from training.visualize import colours
from training.visualize.sampling import Sampler


class SampleGrid:
    """A grid of fixed latents, drawn from the run's seed.

    Args:
        run_dir: folder of the run; grids go to visuals/images/<kimg>_grid.png, their attention to visuals/maps, real images to reals.png.
        dataset: training.dataset.Dataset.
        G: Network, for the shape of its latents.
        seed: the run's seed.
        truncation_psi: truncation of the samples.
        keep: whether older grids are kept.
    """

    def __init__(self, run_dir, dataset, G, seed, truncation_psi, keep):
        self._run_dir = run_dir
        self._dataset = dataset
        self._keep = keep
        self._truncation_psi = float(truncation_psi)
        self._columns, rows = images.grid_shape(dataset.resolution)
        count = self._columns * rows
        stream = numpy_stream(seed, "sample_grid")
        self._z = stream.standard_normal([count, *G.input_shapes[0]])
        self._chosen = stream.randint(dataset.count, size=count)
        self._labels = dataset.labels[self._chosen]

    def write_reals(self):
        """Write reals.png unless it exists."""
        path = os.path.join(self._run_dir, "reals.png")
        if not os.path.exists(path):
            reals = images.crop_padding(self._dataset.read(self._chosen), self._dataset.ratio)
            images.save_png(images.make_grid(reals, self._columns), path)

    def write(self, Gs, shown, batch_size):
        """Write the grids after `shown` images.

        Returns:
            dict kind -> uint8 [C, H, W]: "images" and, for networks with attention, "maps": what each pixel attends to most.

        Raises:
            UserError: out of memory.
        """
        sampler = Sampler(Gs, self._dataset.ratio, self._truncation_psi, batch_size, quiet=True)
        with tflib.memory_errors("--eval-batch-gpu", batch_size):
            ws = sampler.ws(self._z, self._labels)
            cells = _with_maps(sampler, ws) if Gs.config.has_attention else {"images": sampler.pictures(ws)}
        grids = {kind: images.make_grid(pictures, self._columns) for kind, pictures in cells.items()}
        for kind, grid in grids.items():
            self._save(grid, os.path.join(self._run_dir, "visuals", kind), f"{shown // 1000:06d}_grid.png")
        return grids

    def _save(self, grid, folder, name):
        path = os.path.join(folder, name)
        images.save_png(grid, path)
        if not self._keep:
            for _, other in numbered_files(folder, "", "_grid.png"):
                if other != path:
                    os.remove(other)


def _with_maps(sampler, ws):
    """Images, and the last layer's first attention head as colours: dict kind -> uint8 [n, C, H, W]."""
    cells, size = {"images": [], "maps": []}, sampler.maps_batch()
    for start in range(0, len(ws), size):
        pictures, maps = sampler.pictures_and_maps(ws[start : start + size])  # maps [n, k, layers, h, H, W]
        cells["images"].extend(pictures)
        cells["maps"].extend(colours.segmentation(own[:, -1, 0]) for own in maps)
    return {kind: np.stack(found) for kind, found in cells.items()}
