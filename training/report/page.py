"""The page itself: the template, style and scripts in this folder and the data of a run, in one file."""

from __future__ import annotations

import html
import json
import os

from dnnlib import UserError, atomic_output
from training.report import data

FILE_NAME = "report.html"
SCRIPTS = ("dom.js", "charts.js", "explorer.js", "page.js")


def write(run_dir):
    """Write report.html of a run, replacing an earlier one.

    Args:
        run_dir: folder of the run.

    Returns:
        path of the page.

    Raises:
        UserError: the folder does not exist or cannot be written.
    """
    path = os.path.join(run_dir, FILE_NAME)
    if not os.path.isdir(run_dir):
        raise UserError(f"report of {run_dir}: there is no such folder")
    text = render(data.gather(run_dir))
    try:
        with atomic_output(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def render(content):
    """The text of the page that shows gathered data (dict)."""
    script = "\n".join(_part(name) for name in SCRIPTS)
    packed = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")  # no text in it may end the script element
    replacements = {"TITLE": html.escape(content["name"]), "STYLE": _part("page.css"), "DATA": packed, "SCRIPT": script}
    before, *pieces = _part("page.html").split("{{")
    text = [before]
    for piece in pieces:
        name, _, rest = piece.partition("}}")
        text += [replacements[name], rest]
    return "".join(text)


def _part(name):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), encoding="utf-8") as file:
        return file.read()
