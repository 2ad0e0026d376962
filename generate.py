#!/usr/bin/env python3
"""Generate images with a trained model: see --help."""

import contextlib
import math
import sys

from dnnlib import UsageError, option_table, run_main, runs
from dnnlib.option_table import Option

DESCRIPTION = "Generate images with a trained model. A seed gives the same image at any batch size."
OPTION_GROUPS = (
    ("Model", (
        Option("model", str, None, "network snapshot: a path, a URL or gdrive:NAME (required)"),
        Option("gpus", str, "0", "comma-separated GPU numbers (only the first is used), or cpu; without a GPU the CPU is used"),
        Option("debug", bool, False, "show the traceback of an error"),
    )),
    ("Pictures", (
        Option("output_dir", str, "images", "folder for the results"),
        Option("images_num", int, 32, "number of images, with the seeds 0, 1, 2, ...", low=1),
        Option("seeds", str, None, "seeds to use instead, such as 1,5-20"),
        Option("truncation_psi", float, 0.7, "truncation: 1 for full variety, less for more typical images", low=0, high=10),
        Option("batch_size", int, 8, "images computed at once", low=1),
        Option("ratio", float, None, "height / width of the image inside its padding (default: the snapshot's; for a published one, its "
               "dataset's)", low=0.01, high=1),
        Option("class_", str, None, "for models with labels: a class, by its number, or its name if the training recorded that, or a label "
               "vector a,b,c; for labels of a single number, that number with a decimal point (default: a class drawn from the seed)"),
        Option("noise_mode", str, "const", "noise: stored with the model, drawn from the seed, or none",
               choices=("const", "random", "none")),
    )),
    ("Further results", (
        Option("grid", bool, False, "also write all images into one, grid.png"),
        Option("attention_maps", bool, False, "write each pixel's strongest latent, alone (map_*.png) and over the image (blend_*.png)"),
        Option("video", bool, False, "write a walk through the latents of the seeds: video.gif, and video.mp4 if ffmpeg is installed"),
        Option("video_steps", int, 16, "frames from one seed to the next in the video", low=1),
        Option("project", str, None, "instead of sampling: find the latents of this image, and show its reconstruction by the model"),
        Option("project_steps", int, 500, "optimization steps", low=1),
        Option("project_noise", bool, True, "optimize the noise too"),
        Option("features_dir", str, None, "folder with VGG-16, which --project uses if it is there (default: the cache)"),
        Option("blending_alpha", float, 0.3, "weight of the image when it is blended with its map", low=0, high=1),
    )),
)  # fmt: skip
ROWS = {option.name: option for _, rows in OPTION_GROUPS for option in rows}
Options = option_table.options_class(ROWS.values(), "Every option of generate.py, resolved.")
SAMPLING_FLAGS = ("seeds", "images_num", "grid", "attention_maps", "video")
MAX_SEED = 2**31 - 1


def main(argv):
    """Parse, check, launch.

    Args:
        argv: list of command-line arguments.
    """
    given = option_table.parse_given(argv, "generate.py", DESCRIPTION, OPTION_GROUPS)
    options = Options(**given)
    _check(options, given)
    seeds = range(options.images_num) if options.seeds is None else parse_seeds(options.seeds)
    label = None if options.class_ is None else parse_class(options.class_)
    if options.video and len(seeds) < 2:
        raise UsageError("--video: needs at least two seeds to walk between")
    runs.check_writable(options.output_dir, "--output-dir")
    from training.visualize import generate  # TensorFlow is imported here, after all that can be checked without it

    perceptual = None if options.project is None else _perceptual_distance(options.features_dir)
    generate.run(options, list(seeds), label, argv, perceptual)


def _check(options, given):
    """Check combinations of options, and the files they name. `given` has the options of the command line only."""
    if options.model is None:
        raise UsageError("--model: a network snapshot is required (a path, a URL or gdrive:NAME)")
    if "seeds" in given and "images_num" in given:
        raise UsageError("--seeds and --images-num: give only one of them")
    option_table.check_gpus(options.gpus)
    sampling_flags = [ROWS[name].flag for name in SAMPLING_FLAGS if given.get(name)]
    if options.project is not None:
        if sampling_flags:
            raise UsageError(f"--project and {sampling_flags[0]}: give only one of them")
        if options.noise_mode == "random":
            raise UsageError("--noise-mode random: accepted with --project: const, none")
        option_table.check_source("--project", options.project)
    option_table.check_source("--model", options.model)


def _perceptual_distance(features_dir):
    """(name, function) of the VGG-16 distance; None if its file is not on this machine. Nothing is downloaded."""
    from metrics import vgg16, weights

    path = weights.present("vgg16", features_dir)
    if path is None:
        return None
    return f"VGG-16 features ({weights.identify('vgg16', path).label})", vgg16.distance_function(path)


def parse_seeds(text):
    """The seeds in a list such as "1,5-20", in its order, without repetitions.

    Raises:
        UsageError: it is not such a list.
    """
    seeds = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) > MAX_SEED:
            raise UsageError(f"--seeds: got {text!r}, expected numbers and ranges up to {MAX_SEED}, such as 1,5-20")
        if dash and int(last) < int(first):
            raise UsageError(f"--seeds: got the range {part.strip()}, expected the smaller number first")
        seeds += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(seeds))


def parse_class(text):
    """A class number (int), a label vector (list of floats: several, or a single one that is not an integer), or else a class's name."""
    if "_" in text:  # to Python 1_0 is the number 10
        return text
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        label = [float(part) for part in text.split(",")]
        if all(map(math.isfinite, label)):
            return label
    return text


if __name__ == "__main__":
    sys.exit(run_main(main))
