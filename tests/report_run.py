"""A run folder as left by training, made without TensorFlow, for the tests of the report."""

import json
import os

import numpy as np
import PIL.Image

KIMG = tuple(range(0, 240, 24))
COLOURS = ((242, 13, 13), (13, 242, 13), (13, 13, 242))
LAYERS, HEADS, SIZE = 5, 2, 32
MADE = {"seed": 0, "truncation_psi": 0.7, "images": 216000}


def save(folder, name, pixels):
    path = os.path.join(str(folder), *name.split("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    PIL.Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def scene(shade, size=SIZE):
    """A picture: sky, ground and a disc."""
    y, x = np.mgrid[:size, :size] / size
    pixels = np.stack([90 + 100 * y, 120 + 80 * (1 - y), np.full_like(x, 60 + shade)], axis=-1)
    pixels[(x - 0.5) ** 2 + (y - 0.6) ** 2 < 0.06] = (220, 90, 40 + shade)
    return pixels


def owners(layer, size=SIZE):
    """Owner of each pixel: latent 2 for the disc, 1 for the ground, 0 for the sky; the disc grows with the layer."""
    y, x = np.mgrid[:size, :size] / size
    found = (y > 0.5).astype(int)
    found[(x - 0.5) ** 2 + (y - 0.6) ** 2 < 0.01 * (layer + 1)] = 2
    return found


def write_run(folder):
    """Write everything the report reads."""
    with open(os.path.join(str(folder), "stats.jsonl"), "w") as file:
        for tick in range(1, 61):
            values = {"Loss/G": 2 + np.sin(tick / 5), "Loss/D": 1 / tick, "Regularizer/r1": 0.1 / tick, "Gradients/G": 3.0,
                      "Gradients/D": 2.0, "Timing/images_per_second": 25 + tick % 3, "Progress/kimg": 4 * tick,
                      "Timing/seconds_per_kimg": 40.0, "Timing/total_hours": 0.1 * tick, "Resources/peak_memory_gb": 1.5}  # fmt: skip
            file.write(json.dumps({"images": 4000 * tick, **values}) + "\n")
        file.write('{"images": 244000, "Loss/G"')  # killed in the middle of a line
    with open(os.path.join(str(folder), "metrics.jsonl"), "w") as file:
        for kimg in KIMG[1:]:
            line = {"metric": "swd", "values": {"swd": 300 - kimg}, "settings": {"snapshot": f"network-snapshot-{kimg:06d}.pkl"}}
            file.write(json.dumps(line) + "\n")
    record = {"options": {"expname": "demo", "gamma": 10.0, "metrics": ["swd"], "latent": None},
              "training": {"loss": {"g_loss": "logistic_ns"}}, "dataset": {"name": "scenes", "count": 5000, "resolution": 32},
              "versions": {"python": "3.11.7"}, "git": "abc1234"}  # fmt: skip
    with open(os.path.join(str(folder), "config.json"), "w") as file:
        json.dump(record, file)
    with open(os.path.join(str(folder), "log.txt"), "w") as file:
        file.write("command: python run_network.py --train --dataset scenes\ntick 1\n" * 2)
        file.write("command: python run_network.py --vis --note '</script><b>'\n")
    _write_pictures(folder)


def _write_pictures(folder):
    for kimg in KIMG:
        save(folder, f"visuals/images/{kimg:06d}_grid.png", np.tile(scene(kimg / 2), [2, 4, 1]))
    for kimg in KIMG[2:]:  # the first ones were written by an older release
        save(folder, f"visuals/maps/{kimg:06d}_grid.png", np.tile(np.asarray(COLOURS)[owners(kimg / 48)], [2, 4, 1]))
    save(folder, "reals.png", np.tile(scene(50), [2, 4, 1]))
    save(folder, "visuals/noise-variance.png", np.tile(np.arange(SIZE), [SIZE, 1]))
    save(folder, "visuals/layer-mixing.png", np.tile(scene(30), [3, 20, 1]))
    for number in range(2):
        save(folder, f"visuals/snapshot/layer_maps/{number:06d}/image.png", scene(60 * number))
        for layer in range(LAYERS):
            for head in range(HEADS):
                pixels = np.asarray(COLOURS)[np.roll(owners(layer), 8 * head, axis=1)]
                save(folder, f"visuals/snapshot/layer_maps/{number:06d}/l{layer}_h{head}.png", pixels)
        for space in "zw":
            save(folder, f"visuals/snapshot/interpolations-{space}/{number:06d}/all.png", np.tile(scene(20), [1, 9, 1]))
    with open(os.path.join(str(folder), "visuals", "snapshot", "about.json"), "w") as file:
        maps = {**MADE, "grids": [4, 8, 8, 16, 16], "colours": COLOURS, "attended": "latent"}
        json.dump({"interpolations": MADE, "layer_maps": maps}, file)
