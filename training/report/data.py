"""What the report shows, gathered from the files of a run folder."""

from __future__ import annotations

import json
import os
import re
import time

from dnnlib.files import read_object
from dnnlib.runs import numbered_files
from training.report import stats
from training.report.pictures import drawing, photograph, within

GRID_WIDTH = 1024
STRIP_WIDTH = 1600
GRIDS_LIMIT = 6_000_000     # characters of data URLs; the whole page stays below 15 MB
EXPLORER_LIMIT = 2_500_000  # for each source of samples
STRIPS_LIMIT = 700_000      # for each source and space
SOURCES = (("snapshot", "the latest snapshot"), ("", "run_network.py --vis"))
SPACES = (("z", "spherical in z"), ("w", "linear in w"))
OTHER_PICTURES = (  # file, title, the visualization that writes it
    ("reals.png", "Real images", None), ("visuals/images-grid.png", "Samples", "images"),
    ("visuals/noise-variance.png", "Where the noise acts", "noise_var"), ("visuals/layer-mixing.png", "Mixing over layers", "style_mix"),
    ("visuals/component-mixing.png", "Mixing over components", "style_mix"),
)  # fmt: skip


def gather(run_dir):
    """Everything the page shows.

    Args:
        run_dir: folder of a run.

    Returns:
        JSON-ready dict; whatever the run does not have yet is an empty list.
    """
    record = read_object(os.path.join(run_dir, "config.json"))
    visuals = os.path.join(run_dir, "visuals")
    return {
        "name": os.path.basename(os.path.abspath(run_dir)),
        "updated": time.strftime("%Y-%m-%d %H:%M"),
        "dataset": record.get("dataset") or stats.evaluated_dataset(run_dir),
        "environment": {**record.get("versions", {}), **({"code": record["git"]} if "git" in record else {})},
        "sections": {name: record[name] for name in ("options", "training", "generator", "discriminator") if name in record},
        "commands": _commands(os.path.join(run_dir, "log.txt")),
        "charts": stats.training_charts(run_dir),
        "metrics": stats.metric_charts(run_dir),
        "results": stats.metric_table(run_dir),
        "grids": _grids(visuals),
        "explorers": [found for folder, title in SOURCES for found in _explorer(os.path.join(visuals, folder), title)],
        "strips": [found for folder, title in SOURCES for found in _strips(os.path.join(visuals, folder), title)],
        "others": _others(run_dir),
    }


def _made(folder, kind):
    """The entry of a visualization in the about.json of a folder; {} if there is none."""
    found = read_object(os.path.join(folder, "about.json")).get(kind)
    return found if isinstance(found, dict) else {}


def _others(run_dir):
    paths = ((os.path.join(run_dir, name), title, kind) for name, title, kind in OTHER_PICTURES)
    found = [
        {"title": title, "note": _note(_made(os.path.join(run_dir, "visuals"), kind)), "src": photograph(path, STRIP_WIDTH)}
        for path, title, kind in paths
        if os.path.isfile(path)
    ]
    return [picture for picture in found if picture["src"]]


def _commands(log_path):
    """The command lines in a log, oldest first, without repetitions."""
    found = {}
    if os.path.isfile(log_path):
        with open(log_path, encoding="utf-8", errors="replace") as file:
            found = dict.fromkeys(line[len("command: ") :].strip() for line in file if line.startswith("command: "))
    return list(found)


def _grids(visuals):
    """Grids of samples over time, each with the grid of its attention maps or None."""
    maps = dict(numbered_files(os.path.join(visuals, "maps"), "", "_grid.png"))

    def encode(grid):
        kimg, path = grid
        src = photograph(path, GRID_WIDTH)
        return src and {"kimg": kimg, "src": src, "maps": drawing(maps[kimg], GRID_WIDTH) if kimg in maps else None}

    grids = numbered_files(os.path.join(visuals, "images"), "", "_grid.png")
    return [made for _, made in within(grids, encode, most=48, limit=GRIDS_LIMIT)]


def _explorer(folder, title):
    """Samples with their maps: [] or [dict]."""
    about = _made(folder, "layer_maps")
    if "colours" not in about:
        return []
    samples, size = [], 0
    for number, maps_folder in numbered_files(os.path.join(folder, "layer_maps"), "", ""):
        picture = os.path.join(maps_folder, "image.png")
        layers = _layers(maps_folder)
        if os.path.isfile(picture) and layers and size < EXPLORER_LIMIT:
            sample = {"number": number, "src": photograph(picture, 512), "layers": layers}
            if sample["src"] and all(map(all, layers)):
                samples.append(sample)
                size += len(json.dumps(sample))
    if not samples:
        return []
    shown = {"title": title, "note": _note(about), "attended": about.get("attended", "latent")}  # older runs have no such entry
    return [{**shown, "colours": about["colours"], "grids": about["grids"], "samples": samples}]


def _layers(folder):
    """Data URLs of a sample's maps: for each layer, a list with one per head."""
    layers = {}
    for entry in os.listdir(folder):
        match = re.fullmatch(r"l(\d+)_h(\d+)\.png", entry)
        if match:
            layers.setdefault(int(match.group(1)), {})[int(match.group(2))] = drawing(os.path.join(folder, entry))
    return [[heads[head] for head in sorted(heads)] for _, heads in sorted(layers.items())]


def _strips(folder, title):
    """Interpolation strips: a list of dicts, one per space."""
    found = []
    for space, way in SPACES:
        paths = []
        for number, strip_folder in numbered_files(os.path.join(folder, f"interpolations-{space}"), "", ""):
            names = sorted(entry for entry in os.listdir(strip_folder) if entry.endswith(".png"))
            paths += [(number, name, os.path.join(strip_folder, name)) for name in names]
        if paths:
            encoded = within(paths, lambda row: photograph(row[2], STRIP_WIDTH), most=16, limit=STRIPS_LIMIT)
            rows = [{"label": _strip_label(number, name), "src": url} for (number, name, _), url in encoded]
            note = _note(_made(folder, "interpolations"))
            found.append({"title": f"{way}, {title}", "note": note, "rows": rows})
    return found


def _strip_label(number, name):
    """Label of a strip; latents are numbered from 1, as in the explorer."""
    component = re.fullmatch(r"component_(\d+)\.png", name)
    return f"sample {number} to {number + 1}" + (f", latent {int(component.group(1)) + 1} alone" if component else "")


def _note(about):
    parts = [f"{about['images'] / 1000:g} kimg"] if about.get("images") is not None else []
    parts += [f"truncation {about['truncation_psi']:g}"] if "truncation_psi" in about else []
    parts += [f"seed {about['seed']}"] if "seed" in about else []
    return ", ".join(parts)
