"""The gallery: every visualization of a run and every kind of picture of generate.py, each with its command, on one page.

python -m examples.gallery --run demo/results/demo-000 [--output docs/gallery]

Runs this repository's commands (the visualizations go into the run's own folder, the rest into <run>/gallery), puts their pictures
together into sheets and writes README.md around them. Screenshots of report.html need chromium and chromedriver; without these they are
left out.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
import shlex
import sys
from typing import Callable, NamedTuple

import PIL.Image
import PIL.ImageSequence

from dnnlib import UserError, atomic_output, run_main, runs
from examples import webdriver
from examples.demo import step

GAP = 4           # pixels between pictures
SHEET_WIDTH = 1088  # pixels; small pictures are enlarged towards it
GIF_WIDTH = 192


class Section(NamedTuple):
    """One entry of the page."""

    name: str      # of the picture file
    title: str
    text: str
    commands: tuple  # words after "python", a tuple each; all are run
    collect: Callable  # () -> PIL image, or path of a GIF


def main(argv):
    """Parse the options, run the commands, write the page.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m examples.gallery", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of a run of a model with attention, such as demo/results/demo-000")
    parser.add_argument("--output", default=os.path.join("docs", "gallery"), help="folder of the page (default: docs/gallery)")
    parser.add_argument("--project-steps", type=int, default=500, help="steps of the projection (default: 500)")
    options = parser.parse_args(argv)
    run = Run(options.run)
    run.write_photo()
    os.makedirs(options.output, exist_ok=True)
    page, done = [header(run)], set()
    for section in sections(run, options.project_steps):
        for command in section.commands:
            if command not in done:
                step(section.title, command)
                done.add(command)
        page.append(entry(section, save(section.collect(), os.path.join(options.output, section.name))))
    page.append(report_entry(run, options.output))
    with atomic_output(os.path.join(options.output, "README.md"), "w") as file:
        file.write("\n".join(page))
    print(f"\n{os.path.join(options.output, 'README.md')}")


def header(run):
    """Beginning of the page."""
    return f"""# Gallery

What each visualization shows, on the run {os.path.basename(run.folder)}: {run.about}.
Where a command writes many files, some of them stand here side by side, enlarged. This page and its pictures are made by
`python -m examples.gallery --run {run.folder}`.
"""


def entry(section, file):
    """A section of the page."""
    commands = "\n".join(f"python {' '.join(shlex.quote(word) for word in command)}" for command in section.commands)
    return f"## {section.title}\n\n{section.text}\n\n```bash\n{commands}\n```\n\n![{section.title}]({file})\n"


def save(picture, stem):
    """Write a picture, enlarged by a whole number, as a small PNG or, given the path of a GIF, as a GIF.

    Returns:
        name of the file.
    """
    if isinstance(picture, str):
        with PIL.Image.open(picture) as movie:
            frames = [_enlarged(frame.convert("RGB"), GIF_WIDTH) for frame in PIL.ImageSequence.Iterator(movie)]
            duration = movie.info["duration"]
        with atomic_output(f"{stem}.gif") as file:
            frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
        return os.path.basename(stem) + ".gif"
    with atomic_output(f"{stem}.png") as file:
        _enlarged(picture, SHEET_WIDTH).save(file, format="PNG", optimize=True)
    return os.path.basename(stem) + ".png"


def _enlarged(picture, width):
    factor = min(max(width // picture.width, 1), 4)
    return picture.resize((factor * picture.width, factor * picture.height), PIL.Image.Resampling.NEAREST)


def _screenshot(session, stem):
    """Write what a browser shows as JPEG; returns the file's name."""
    session.screenshot(stem + ".png")
    picture = _opened(stem + ".png")
    os.remove(stem + ".png")
    with atomic_output(stem + ".jpg") as file:
        picture.save(file, format="JPEG", quality=88, subsampling=0)
    return os.path.basename(stem) + ".jpg"


SHOTS = (  # name, title, width, height, dark, phone, what is at the top of the screen
    ("report-light", "the top of the page", 1200, 900, False, False, "body"),
    ("report-dark", "attention explorer, dark mode", 1200, 900, True, False, "#attention"),
    ("report-phone", "the same on a phone", 390, 844, False, True, "#attention"),
)


def report_entry(run, output):
    """The section about report.html, with screenshots where there is a browser."""
    text = "## report.html\n\nAll of it on one page in the run's folder, brought up to date at every snapshot, and by:\n\n"
    text += f"```bash\npython {' '.join(run.report)}\n```\n"
    step("report.html", run.report)
    if None in webdriver.programs():
        print("no chromium and chromedriver: no screenshots of report.html")
        return text
    for name, title, width, height, dark, phone, place in SHOTS:
        with webdriver.browser(width, height, dark=dark) as session:
            if phone:
                session.become_phone(width, height)
            session.open(os.path.abspath(os.path.join(run.folder, "report.html")))
            session.wait("[...document.images].every((image) => image.complete)")
            session.run("document.querySelector(arguments[0]).scrollIntoView()", place)
            if place == "#attention":
                session.wait("document.querySelector('#attention canvas').width > 1")
                (session.tap if phone else session.hover)("#attention canvas", *(() if phone else (0, 0)))
                session.run("document.querySelector(arguments[0]).scrollIntoView()", place)
            text += f"\n![report.html: {title}]({_screenshot(session, os.path.join(output, name))})\n"
    return text


class Run:
    """A run folder, as the commands name it."""

    def __init__(self, folder):
        self.folder = os.path.normpath(folder)
        snapshots = runs.numbered_files(self.folder, "network-snapshot-", ".pkl")
        match = re.fullmatch(r"(.+)-\d+", os.path.basename(self.folder))
        if not snapshots or not match:
            raise UserError(f"--run {folder}: expected the folder of a run, <result-dir>/<expname>-<NNN>, with a snapshot in it")
        with open(os.path.join(self.folder, "config.json"), encoding="utf-8") as file:
            record = json.load(file)
        options, data = record["options"], record["dataset"]
        self.about = f"dataset {data['name']} of {data['count']:,} images, {data['resolution']} pixels wide, {snapshots[-1][0]} kimg"
        self.snapshot = snapshots[-1][1]
        self._cell = (round(data["resolution"] * data["ratio"]), data["resolution"])
        results = os.path.dirname(self.folder) or "."
        self._run = ("--expname", match.group(1), "--result-dir", results)
        self._data = ("--dataset", options["dataset"], "--data-dir", options["data_dir"])
        self.report = ("run_network.py", "--report", *self._run)
        if runs.latest_run(results, match.group(1)) != self.folder:
            raise UserError(f"--run {folder}: there is a later run of that name, which the visualizations would show")

    def write_photo(self):
        """The first image of reals.png as gallery/photo.png, for the projection."""
        height, width = self._cell
        folder = os.path.join(self.folder, "gallery")
        os.makedirs(folder, exist_ok=True)
        _opened(os.path.join(self.folder, "reals.png")).crop((0, 0, width, height)).save(os.path.join(folder, "photo.png"))

    def vis(self, *flags):
        """A command of run_network.py."""
        return ("run_network.py", "--vis", *self._run, *self._data, *flags)

    def generate(self, name, *flags):
        """A command of generate.py that writes into a folder of the gallery."""
        return ("generate.py", "--model", self.snapshot, "--output-dir", os.path.join(self.folder, "gallery", name), *flags)

    def pictures(self, *parts):
        """The pictures of a pattern below the run, in order.

        Raises:
            UserError: there are none.
        """
        pattern = os.path.join(self.folder, *parts)
        paths = sorted(glob.glob(pattern), key=lambda path: [int(digits) for digits in re.findall(r"\d+", path)])
        if not paths:
            raise UserError(f"gallery: no files {pattern}")
        return [_opened(path) for path in paths]


def _opened(path):
    with PIL.Image.open(path) as picture:
        return picture.convert("RGB")


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


def sections(run, project_steps):
    """Every entry but the report, in the order of the page."""
    samples = run.vis("--vis-images", "--vis-latents", "--vis-num", "32")
    maps, layers = run.vis("--vis-maps", "--vis-num", "32"), run.vis("--vis-layer-maps", "--vis-rich-num", "4")
    ways = run.vis("--vis-interpolations", "--vis-rich-num", "4")
    components = run.vis("--vis-interpolations", "--interpolation-per-component", "--vis-rich-num", "1")
    noise, mixing = run.vis("--vis-noise-var"), run.vis("--vis-style-mix")
    grid = run.generate("grid", "--seeds", "1-16", "--grid")
    psis = {psi: run.generate(f"psi-{psi}", "--seeds", "1-8", "--truncation-psi", psi) for psi in ("0.3", "0.7", "1.2")}
    modes = {mode: run.generate(f"noise-{mode}", "--seeds", "1-8", "--noise-mode", mode) for mode in ("const", "random", "none")}
    attention = run.generate("attention", "--seeds", "1-8", "--attention-maps")
    video = run.generate("video", "--seeds", "1-6", "--video", "--video-steps", "8")
    photo = os.path.join(run.folder, "gallery", "photo.png")
    projected = run.generate("projection", "--project", photo, "--project-steps", str(project_steps))
    visuals, made = ("visuals",), ("gallery",)

    def strips(name, spaces="zw"):
        return stacked([strip for space in spaces for strip in run.pictures(*visuals, f"interpolations-{space}", "*", name)])

    def layer_rows():
        heads = [run.pictures(*visuals, "layer_maps", f"{index:06d}", "l*_h0.png") for index in range(4)]
        return sheet([[picture, *row] for picture, row in zip(run.pictures(*visuals, "images", "*[0-9].png"), heads)])

    def rows(*names, count=8):
        return sheet([run.pictures(*visuals, name, "*[0-9].png")[:count] for name in names])

    def generated(folders, pattern):
        return sheet([run.pictures(*made, folder, pattern) for folder in folders])

    return [
        Section(
            "samples", "Samples",
            "Images of the seeds 0, 1, 2, ... in `visuals/images`; their latents z [K, z_dim] and w [K, w_dim] as .npy in `latents-z` and\n"
            "`latents-w`. `--vis-grid` writes the images as one picture instead.",
            (samples,), lambda: in_rows(run.pictures(*visuals, "images", "*[0-9].png")[:16], 8),
        ),
        Section(
            "maps", "Attention maps",
            "From top to bottom: the images; each pixel in the colour of its strongest latent (`maps`); the mixture of the latents'\n"
            "colours (`softmaps`); both over the image (`blends`, `softblends`). Last layer, first head.",
            (samples, maps), lambda: rows("images", "maps", "softmaps", "blends", "softblends"),
        ),
        Section(
            "layer-maps", "Attention maps of all layers",
            "An image a row, and in each layer, from the first and coarsest to the last, the strongest latents (`layer_maps`).",
            (samples, layers), layer_rows,
        ),
        Section(
            "interpolations-per-component", "Interpolations, one component at a time",
            "In each strip one component goes from its latent in sample 0 to that in sample 1, and the others stay; here in z. The last\n"
            "component is the global one, which has no region of its own and, after as short a training as the demo's, does most.",
            (components,), lambda: strips("component_*.png", "z"),
        ),
        Section(
            "interpolations", "Interpolations",
            "From one sample to the next, spherical in z (upper strips) and linear in w (lower). Each is a strip, a GIF, and an MP4 where\n"
            "ffmpeg exists.",
            (ways,), lambda: strips("all.png"),
        ),
        Section(
            "noise-variance", "Noise variation",
            "Where the noise acts on sample 0: deviation over 100 renderings, times four (white: 64 of 255).",
            (noise,), lambda: run.pictures(*visuals, "noise-variance.png")[0],
        ),
        Section(
            "layer-mixing", "Style mixing over layers",
            "Four tables, one a cut: w comes from the image on the left for the layers below the cut, from the image above for the\n"
            "others. The cut rises from table to table.",
            (mixing,), lambda: run.pictures(*visuals, "layer-mixing.png")[0],
        ),
        Section(
            "component-mixing", "Style mixing over components", "The same for components instead of layers.",
            (mixing,), lambda: run.pictures(*visuals, "component-mixing.png")[0],
        ),
        Section(
            "grid", "Pictures of seeds", "generate.py writes one file a seed, and with `--grid` all in one.",
            (grid,), lambda: run.pictures(*made, "grid", "grid.png")[0],
        ),
        Section(
            "truncation", "Truncation", f"The same seeds at ψ = {', '.join(psis)}: from alike to various.",
            tuple(psis.values()), lambda: generated([f"psi-{psi}" for psi in psis], "sample_*.png"),
        ),
        Section(
            "noise-modes", "Noise modes",
            "The same seeds with the noise of the snapshot, with noise by the seed, and without: it is fine detail.",
            tuple(modes.values()), lambda: generated([f"noise-{mode}" for mode in modes], "sample_*.png"),
        ),
        Section(
            "attention-maps", "Attention maps of generate.py", "Below each picture its map, alone and over the picture.",
            (attention,), lambda: sheet([run.pictures(*made, "attention", f"{name}_*.png") for name in ("sample", "map", "blend")]),
        ),
        Section(
            "video", "Video", "A closed walk through the latents of the seeds, as GIF, and as MP4 where ffmpeg exists.",
            (video,), lambda: os.path.join(run.folder, *made, "video", "video.gif"),
        ),
        Section(
            "projection", "Projection",
            "The nearest picture that the network can make (right) to a given one (left, of the dataset); w is in the .npz beside it.",
            (projected,), lambda: run.pictures(*made, "projection", "photo-side-by-side.png")[0],
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_main(main))
