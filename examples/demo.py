"""The quick start: draw a dataset of scenes, train a small GANformer on it, look at what it learned.

python -m examples.demo [--kimg N] [--images 4000] [--folder demo]

Every step is one of this repository's commands and is printed before it runs; paste the commands to go on from there. When run again, the
demo continues where it left off.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import subprocess
import sys
import time

from PIL import Image

from dnnlib import UserError, run_main
from dnnlib.util import python_line

NETWORK = [
    "--ganformer-default", "--components-num", "8", "--latent-size", "256", "--channel-base", "1024", "--channel-max", "128",
    "--batch-size", "8", "--batch-gpu", "8", "--gamma", "0.8", "--g-lr", "0.003", "--d-lr", "0.003", "--ema-kimg", "0.5", "--seed", "1",
]  # fmt: skip
KIMG = 10 if sys.version_info >= (3, 8) else 5  # about ten minutes on two cores; TensorFlow 1.15 is half as fast there
METRIC = ["--metrics", "swd", "--eval-images-num", "512"]


def main(argv):
    """Parse the options, run the steps, print the table.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kimg", type=float, default=KIMG, help=f"length of the training, in thousands of images (default: {KIMG})")
    parser.add_argument("--images", type=int, default=4000, help="size of the dataset (default: 4000)")
    parser.add_argument("--folder", default="demo", help="where everything goes (default: demo)")
    options = parser.parse_args(argv)

    data, results = os.path.join(options.folder, "datasets"), os.path.join(options.folder, "results")
    run = ["run_network.py", "--dataset", "scenes", "--data-dir", data, "--result-dir", results, "--expname", "demo"]
    start = time.time()
    if not os.path.exists(os.path.join(data, "scenes", "dataset.json")):
        scenes = ["prepare_data.py", "--scenes", "--resolution", 64, "--max-images", options.images, "--labels", "none", "--data-dir", data]
        step("a dataset of scenes", scenes)
    if not glob.glob(os.path.join(results, "demo-*", "metric-swd.txt")):
        step("the untrained network, for comparison", [*run, "--train", "--total-kimg", 0, *NETWORK, *METRIC])
    step("training", [*run, "--train", "--total-kimg", options.kimg, "--tick-kimg", 1, *NETWORK, *METRIC])
    run_dir = sorted(glob.glob(os.path.join(results, "demo-*")))[-1]
    step("pictures, attention maps, interpolations", [*run, "--vis", "--vis-num", 32, "--vis-rich-num", 4])
    snapshot = sorted(glob.glob(os.path.join(run_dir, "network-snapshot-*.pkl")))[-1]
    images = os.path.join(options.folder, "images")
    step("pictures from seeds", ["generate.py", "--model", snapshot, "--output-dir", images, "--seeds", "1-16", "--grid"])
    overview(run_dir, os.path.join(options.folder, "overview.png"))
    print(table(options.folder, run_dir, images, time.time() - start))


def step(title, command):
    """Print a command and run it with this Python.

    Raises:
        UserError: the command failed.
    """
    command = [str(word) for word in command]
    print(f"\n== {title}\n$ {python_line(command)}", flush=True)
    code = subprocess.call([sys.executable, *command])
    if code:
        raise UserError(f"demo: {command[0]} ended with exit code {code}")


def overview(run_dir, path, columns=8):
    """Write a picture of four rows: the dataset, generated images, their attention maps, and the maps over the images."""
    reals = Image.open(os.path.join(run_dir, "reals.png")).convert("RGB")
    visuals = os.path.join(run_dir, "visuals")
    size = Image.open(os.path.join(visuals, "images", "000000.png")).size
    rows = [[reals.crop((size[0] * i, 0, size[0] * (i + 1), size[1])) for i in range(columns)]]
    for kind in ("images", "maps", "blends"):
        rows.append([Image.open(os.path.join(visuals, kind, f"{i:06d}.png")).convert("RGB") for i in range(columns)])
    sheet = Image.new("RGB", (size[0] * columns, (size[1] + 4) * len(rows) - 4), "white")
    for y, pictures in enumerate(rows):
        for x, picture in enumerate(pictures):
            sheet.paste(picture, (x * size[0], y * (size[1] + 4)))
    sheet.save(path)


def table(folder, run_dir, images, seconds):
    """The closing table of a demo run, as text."""
    with open(os.path.join(run_dir, "metrics.jsonl"), encoding="utf-8") as file:
        results = [json.loads(line) for line in file]
    swd = [result["values"]["swd"] for result in results if result["metric"] == "swd"]
    with open(os.path.join(run_dir, "stats.jsonl"), encoding="utf-8") as file:
        rates = [json.loads(line)["Timing/images_per_second"] for line in file]
    rows = [
        ("sliced Wasserstein distance, untrained", f"{swd[0]:.1f}"),
        ("sliced Wasserstein distance, trained", f"{swd[-1]:.1f}"),
        ("training speed, images/s", f"{sorted(rates)[len(rates) // 2]:.1f}"),
        ("time of the demo, minutes", f"{seconds / 60:.1f}"),
        ("dataset, images and attention maps", os.path.join(folder, "overview.png")),
        ("training pictures over time", os.path.join(run_dir, "visuals", "images")),
        ("attention maps", os.path.join(run_dir, "visuals", "blends")),
        ("interpolations", os.path.join(run_dir, "visuals", "interpolations-w")),
        ("pictures from seeds", images),
        ("everything on one page", os.path.join(run_dir, "report.html")),
        ("curves", f"tensorboard --logdir {run_dir}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n" + "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(run_main(main))
