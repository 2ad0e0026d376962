"""What the report shows of every snapshot of a training: a few samples with their maps and interpolations."""

from __future__ import annotations

import dataclasses
import os

from dnnlib import tflib
from training import command_line
from training.visualize import kinds

SAMPLES = 4


def run(Gs, dataset, options, run_dir, shown):
    """Write samples, maps of all layers and interpolations of a snapshot below <run>/visuals/snapshot, replacing those of the previous one.

    Args:
        Gs: tflib.Network, the generator.
        dataset: training.dataset.Dataset, for ratio and labels.
        options: training.command_line.Options of the training.
        run_dir: folder of the run.
        shown: number of images shown to the networks so far.

    Raises:
        UserError: out of memory.
    """
    asked = {f"vis_{kind}": kind in ("images", "layer_maps", "interpolations") for kind in kinds.KINDS}
    asked["vis_layer_maps"] = asked["vis_layer_maps"] and Gs.config.has_attention
    few = {"vis_num": SAMPLES, "vis_rich_num": SAMPLES, "vis_grid": False, "interpolation_per_component": False}
    folder = os.path.join(run_dir, "visuals", "snapshot")
    with tflib.memory_errors("--eval-batch-gpu", command_line.eval_batch_gpu(options)):
        kinds.run(Gs, dataset, dataclasses.replace(options, **asked, **few), folder, quiet=True, with_movies=False, shown=shown)
