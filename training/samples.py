"""Pictures of a training: the reals, and the same latents over time."""

from __future__ import annotations

import os

from dnnlib.runs import numbered_files
from dnnlib.tflib import numpy_stream
from training import images


class SampleGrid:
    """A grid of fixed latents, drawn from the run's seed.

    Args:
        run_dir: folder of the run; grids go to visuals/images/<kimg>_grid.png, real images to reals.png.
        dataset: training.dataset.Dataset.
        G: Network, for the shape of its latents.
        seed: the run's seed.
        truncation_psi: truncation of these pictures.
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
        """Write reals.png once."""
        path = os.path.join(self._run_dir, "reals.png")
        if not os.path.exists(path):
            reals = images.crop_padding(self._dataset.read(self._chosen), self._dataset.ratio)
            images.save_png(images.make_grid(reals, self._columns), path)

    def write(self, Gs, shown, batch_size):
        """Write the grid after `shown` images.

        Returns:
            uint8 [C, H, W], the grid.
        """
        folder = os.path.join(self._run_dir, "visuals", "images")
        outputs = Gs.run(self._z, self._labels, batch_size=batch_size, truncation_psi=self._truncation_psi, noise_mode="const")
        fakes = images.crop_padding(images.to_uint8(outputs.images), self._dataset.ratio)
        grid = images.make_grid(fakes, self._columns)
        path = os.path.join(folder, f"{shown // 1000:06d}_grid.png")
        images.save_png(grid, path)
        if not self._keep:
            for _, other in numbered_files(folder, "", "_grid.png"):
                if other != path:
                    os.remove(other)
        return grid
