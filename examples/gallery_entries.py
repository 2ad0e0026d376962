"""The gallery's entries: the commands, and how their pictures are put together."""

from __future__ import annotations

import os
from typing import Callable, NamedTuple

import PIL.Image

GAP = 4  # pixels between pictures
VIS = {  # options of run_network.py --vis, besides those that name the run and its dataset
    "samples": "--vis-images --vis-latents --vis-num 32",
    "maps": "--vis-maps --vis-num 32",
    "layer-maps": "--vis-layer-maps --vis-rich-num 4",
    "interpolations": "--vis-interpolations --vis-rich-num 4",
    "components": "--vis-interpolations --interpolation-per-component --vis-rich-num 1",
    "noise": "--vis-noise-var",
    "mixing": "--vis-style-mix",
}
PSIS = ("psi-0.3", "psi-0.7", "psi-1.2")
NOISE_MODES = ("noise-const", "noise-random", "noise-none")
GENERATE = {  # options of generate.py, besides the snapshot and the folder, which is named after the command; "projection" takes a path
    "grid": "--seeds 1-16 --grid",
    **{name: f"--seeds 1-8 --truncation-psi {name[len('psi-'):]}" for name in PSIS},
    **{name: f"--seeds 1-8 --noise-mode {name[len('noise-'):]}" for name in NOISE_MODES},
    "attention": "--seeds 1-8 --attention-maps",
    "video": "--seeds 1-6 --video --video-steps 8",
}


class Section(NamedTuple):
    """One entry of the page."""

    name: str      # of the picture file
    title: str
    text: str
    commands: tuple  # names of commands; all are run
    collect: Callable  # (examples.gallery.Run) -> PIL image, or path of a GIF


def sheet(rows):
    """Rows of pictures with gaps between, enlarged by a whole number."""
    width = max(sum(picture.width + GAP for picture in row) for row in rows) - GAP
    height = sum(row[0].height + GAP for row in rows) - GAP
    page = PIL.Image.new("RGB", (width, height), "white")
    y = 0
    for row in rows:
        x = 0
        for picture in row:
            page.paste(picture, (x, y))
            x += picture.width + GAP
        y += row[0].height + GAP
    return page


def stacked(pictures):
    """One picture below the other."""
    return sheet([[picture] for picture in pictures])


def in_rows(pictures, columns):
    """Pictures of one size in rows."""
    return sheet([pictures[start : start + columns] for start in range(0, len(pictures), columns)])


def strips(run, name, spaces="zw"):
    """Interpolation strips in the given latent spaces, one below the other."""
    return stacked([strip for space in spaces for strip in run.pictures("visuals", f"interpolations-{space}", "*", name)])


def layer_rows(run):
    """Samples, each with its maps in a row."""
    folders = [("visuals", "layer_maps", f"{index:06d}") for index in range(4)]
    return sheet([run.pictures(*folder, "image.png") + run.pictures(*folder, "l*_h0.png") for folder in folders])


def rows(run, *names):
    """The first eight pictures of some visualizations, one row each."""
    return sheet([run.pictures("visuals", name, "*[0-9].png")[:8] for name in names])


def generated(run, commands):
    """The samples of some generate.py commands, one row each."""
    return sheet([run.pictures("gallery", name, "sample_*.png") for name in commands])


SECTIONS = (
    Section(
        "samples", "Samples",
        "Images of the seeds 0, 1, 2, ... in `visuals/images`; their latents z [K, z_dim] and w [K, w_dim] as .npy in `latents-z` and\n"
        "`latents-w`. `--vis-grid` writes all images into one file instead.",
        ("samples",), lambda run: in_rows(run.pictures("visuals", "images", "*[0-9].png")[:16], 8),
    ),
    Section(
        "maps", "Attention maps",
        "From top to bottom: the images; each pixel in the colour of its strongest latent (`maps`); the mixture of the latents'\n"
        "colours (`softmaps`); both over the image (`blends`, `softblends`). Last layer, first head.",
        ("samples", "maps"), lambda run: rows(run, "images", "maps", "softmaps", "blends", "softblends"),
    ),
    Section(
        "layer-maps", "Attention maps of all layers",
        "One image per row, with the strongest latents in each layer, from the first and coarsest to the last (`layer_maps`).",
        ("layer-maps",), layer_rows,
    ),
    Section(
        "interpolations-per-component", "Interpolations, one component at a time",
        "In each strip one component moves from its latent in sample 0 to that in sample 1 while the others stay fixed; here in z. The\n"
        "last component is the global one, which has no region of its own and, after so short a training, has the largest effect.",
        ("components",), lambda run: strips(run, "component_*.png", "z"),
    ),
    Section(
        "interpolations", "Interpolations",
        "From one sample to the next, spherical in z (upper strips) and linear in w (lower strips). Each is a strip, a GIF, and an MP4\n"
        "if ffmpeg is installed.",
        ("interpolations",), lambda run: strips(run, "all.png"),
    ),
    Section(
        "noise-variance", "Noise variation",
        "Where the noise changes sample 0: standard deviation over 100 renderings, times four (white: 64 of 255).",
        ("noise",), lambda run: run.pictures("visuals", "noise-variance.png")[0],
    ),
    Section(
        "layer-mixing", "Style mixing over layers",
        "Four tables, one per cut: layers below the cut take w from the image on the left, the others from the image above.\n"
        "The cut moves up from table to table.",
        ("mixing",), lambda run: run.pictures("visuals", "layer-mixing.png")[0],
    ),
    Section(
        "component-mixing", "Style mixing over components", "The same for components instead of layers.",
        ("mixing",), lambda run: run.pictures("visuals", "component-mixing.png")[0],
    ),
    Section(
        "grid", "Images from seeds", "generate.py writes one file per seed, and with `--grid` also one file with all of them.",
        ("grid",), lambda run: run.pictures("gallery", "grid", "grid.png")[0],
    ),
    Section(
        "truncation", "Truncation", "The same seeds at ψ = 0.3, 0.7 and 1.2: from similar to diverse.",
        PSIS, lambda run: generated(run, PSIS),
    ),
    Section(
        "noise-modes", "Noise modes",
        "The same seeds with the snapshot's noise, with noise drawn from the seed, and without noise: it changes fine detail.",
        NOISE_MODES, lambda run: generated(run, NOISE_MODES),
    ),
    Section(
        "attention-maps", "Attention maps of generate.py", "Below each image its map, alone and overlaid on the image.",
        ("attention",), lambda run: sheet([run.pictures("gallery", "attention", f"{name}_*.png") for name in ("sample", "map", "blend")]),
    ),
    Section(
        "video", "Video", "A closed walk through the latents of the seeds, as a GIF, and as an MP4 if ffmpeg is installed.",
        ("video",), lambda run: os.path.join(run.folder, "gallery", "video", "video.gif"),
    ),
    Section(
        "projection", "Projection",
        "A given image (left, from the dataset) and the nearest one that the network can make (right); w is in the .npz beside it.",
        ("projection",), lambda run: run.pictures("gallery", "projection", "photo-side-by-side.png")[0],
    ),
)  # fmt: skip
