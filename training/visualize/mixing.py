"""Style mixing tables (Karras et al. 2019, figure 3), over layers and over components.

Letters: K latents, L layers of w, C H W image.
"""

from __future__ import annotations

import os

import numpy as np

from training import images
from training.visualize import sampling

ROWS, COLUMNS = 2, 4
CUTS = (2, 5, 8, 11)   # out of the 15 layers at 256 x 256 pixels
CUTS_LAYERS = 15
GAP = 8                # pixels between two tables


def scaled_cuts(count):
    """The cuts for `count` layers (or components): ascending, distinct, from 1 to count - 1."""
    return sorted({min(max(int(round(cut * count / CUTS_LAYERS)), 1), count - 1) for cut in CUTS}) if count > 1 else []


def tables(sampler, seed, folder):
    """Write layer-mixing.png and, for models with several latents, component-mixing.png.

    Each is a row of tables, one per cut. In a cell, w comes from the source at the left of the row for the layers (components) below the
    cut, and from the source at the top of the column for the others.

    Args:
        sampler: training.visualize.sampling.Sampler.
        seed: --seed.
        folder: results are written into it.
    """
    ws = sampler.ws_of_seeds(sampling.seeds_of(seed, 0, ROWS + COLUMNS))  # [n, K, L, w_dim]
    sources = sampler.pictures(ws)
    for name, axis in (("layer-mixing", 1), ("component-mixing", 0)):
        cuts = scaled_cuts(ws.shape[1 + axis])
        if not cuts:
            print(f"{name}: this model has a single latent, nothing to mix")
            continue
        pictures = [_table(sampler, ws, sources, cut, axis) for cut in cuts]
        images.save_png(_side_by_side(pictures), os.path.join(folder, f"{name}.png"))


def _table(sampler, ws, sources, cut, axis):
    """One table: uint8 [C, (1 + rows) H, (1 + columns) W]."""
    mixed = []
    for row in range(ROWS):
        for column in range(ROWS, ROWS + COLUMNS):
            latents = ws[column].copy()  # [K, L, w_dim]
            below = (slice(None),) * axis + (slice(None, cut),)
            latents[below] = ws[row][below]
            mixed.append(latents)
    cells = sampler.pictures(np.stack(mixed)).reshape([ROWS, COLUMNS, *sources.shape[1:]])
    head = np.concatenate([np.full_like(sources[:1], 255), sources[ROWS:]])
    body = [np.concatenate([sources[row : row + 1], cells[row]]) for row in range(ROWS)]
    return images.make_grid(np.concatenate([head, *body]), 1 + COLUMNS)


def _side_by_side(pictures):
    channels, height, _ = pictures[0].shape
    gap = np.full([channels, height, GAP], 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=2)
