"""The gallery: every visualization of a run and every kind of picture that generate.py makes, each with its command, on one page.

python -m examples.gallery --run demo/results/demo-000 [--output docs/gallery]

Runs this repository's commands (the visualizations go into the run's own folder, the rest into <run>/gallery), assembles their pictures
into sheets and writes README.md around them. Screenshots of report.html need chromium and chromedriver; without these, they are left out.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import sys

import PIL.Image
import PIL.ImageSequence

from dnnlib import UserError, atomic_output, run_main, runs
from dnnlib.util import python_line
from examples import webdriver
from examples.demo import step
from examples.gallery_entries import GENERATE, SECTIONS, VIS
from training import run_files, run_record
from training.picture_files import open_picture

SHEET_WIDTH = 1088  # pixels; small pictures are enlarged towards it
GIF_WIDTH = 192


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
    commands, done = run.commands(options.project_steps), set()
    page = [header(run)]
    for section in SECTIONS:
        for name in section.commands:
            if name not in done:
                step(section.title, commands[name])
                done.add(name)
        picture = save(section.collect(run), os.path.join(options.output, section.name))
        page.append(entry(section, [commands[name] for name in section.commands], picture))
    page.append(report_entry(run, options.output))
    with atomic_output(os.path.join(options.output, "README.md"), "w") as file:
        file.write("\n".join(page))
    print(f"\n{os.path.join(options.output, 'README.md')}")


def header(run):
    """Beginning of the page."""
    return f"""# Gallery

What each visualization shows, for the run {os.path.basename(run.folder)}: {run.about}.
If a command writes many files, some of them are shown side by side, enlarged. This page and its images are made by
`python -m examples.gallery --run {run.folder}`.
"""


def entry(section, commands, file):
    """A section of the page."""
    lines = "\n".join(python_line(command) for command in commands)
    return f"## {section.title}\n\n{section.text}\n\n```bash\n{lines}\n```\n\n![{section.title}]({file})\n"


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
    """Save what a browser shows as a JPEG file; returns the file's name."""
    session.screenshot(stem + ".png")
    picture = _opened(stem + ".png")
    os.remove(stem + ".png")
    with atomic_output(stem + ".jpg") as file:
        picture.save(file, format="JPEG", quality=88, subsampling=0)
    return os.path.basename(stem) + ".jpg"


SHOTS = (  # name, title, width, height, dark, phone, element at the top of the screen
    ("report-light", "the top of the page", 1200, 900, False, False, "body"),
    ("report-dark", "attention explorer, dark mode", 1200, 900, True, False, "#attention"),
    ("report-phone", "the same on a phone", 390, 844, False, True, "#attention"),
)


def report_entry(run, output):
    """The section about report.html, with screenshots if there is a browser."""
    text = "## report.html\n\nAll of it on one page in the run's folder, updated at every snapshot, and by:\n\n"
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
    """A run folder, and the options with which commands refer to it."""

    def __init__(self, folder):
        self.folder = os.path.normpath(folder)
        snapshots = run_files.snapshots(self.folder)
        name = runs.run_name(self.folder)
        if not snapshots or not name:
            raise UserError(f"--run {folder}: expected the folder of a run, <result-dir>/<expname>-<NNN>, with a snapshot in it")
        record = run_record.read_record(self.folder)
        options, data, kimg = record["options"], record["dataset"], run_files.snapshot_kimg(os.path.basename(snapshots[-1]))
        self.about = f"dataset {data['name']} of {data['count']:,} images, {data['resolution']} pixels wide, {kimg} kimg"
        self.snapshot = snapshots[-1]
        self._cell = (round(data["resolution"] * data["ratio"]), data["resolution"])
        results = os.path.dirname(self.folder) or "."
        self._run = ("--expname", name, "--result-dir", results)
        self._data = ("--dataset", options["dataset"], "--data-dir", options["data_dir"])
        self.report = ("run_network.py", "--report", *self._run)
        if run_record.trained_run(results, name) != self.folder:
            raise UserError(f"--run {folder}: there is a later run of that name, which the visualizations would show")

    def write_photo(self):
        """Save the first image of reals.png as gallery/photo.png, for the projection."""
        height, width = self._cell
        photo = self._made("photo.png")
        os.makedirs(os.path.dirname(photo), exist_ok=True)
        _opened(os.path.join(self.folder, "reals.png")).crop((0, 0, width, height)).save(photo)

    def commands(self, project_steps):
        """The commands of the entries by name, each a tuple of the words after "python"."""
        made = {name: flags.split() for name, flags in GENERATE.items()}
        made["projection"] = ["--project", self._made("photo.png"), "--project-steps", str(project_steps)]
        return {
            **{name: ("run_network.py", "--vis", *self._run, *self._data, *flags.split()) for name, flags in VIS.items()},
            **{name: ("generate.py", "--model", self.snapshot, "--output-dir", self._made(name), *flags) for name, flags in made.items()},
        }

    def _made(self, name):
        """Path of something in the run's gallery folder."""
        return os.path.join(self.folder, "gallery", name)

    def pictures(self, *parts):
        """The pictures below the run folder that match a pattern, in order.

        Raises:
            UserError: there are none.
        """
        pattern = os.path.join(self.folder, *parts)
        paths = sorted(glob.glob(pattern), key=lambda path: [int(digits) for digits in re.findall(r"\d+", path)])
        if not paths:
            raise UserError(f"gallery: no files {pattern}")
        return [_opened(path) for path in paths]


def _opened(path):
    return open_picture(path).convert("RGB")


if __name__ == "__main__":
    sys.exit(run_main(main))
