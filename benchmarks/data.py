"""Speed of preparing and reading datasets: python -m benchmarks.data [--part convert,read,scenes] [--count N] [--images-dir DIR]

Each part prints our rate beside a ceiling measured in the same run: Pillow's own decoding, resizing and encoding in one process times the
number of cores; Pillow's bare PNG decoding in the same number of threads. Rounds of the two alternate. Without --images-dir (a folder of
jpg photographs), the pictures are noise with the 1/f spectrum of photographs.
"""

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from benchmarks import comma_list
from dataset_tool import cli, pictures, scenes, sources
from dnnlib import run_main
from dnnlib.util import usable_cores
from training import manifest
from training.dataset import Dataset

PARTS = ("convert", "read", "scenes")
SOURCE_SIZE, STORED_SIZE = 1024, 256
CORES = usable_cores()


def photograph_like(size, seed):
    """Colour noise with amplitudes proportional to 1 / frequency, like the spectra of photographs: uint8 [size, size, 3]."""
    stream = np.random.RandomState(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    shared = stream.standard_normal((size, size))
    mixtures = [shared + 0.3 * stream.standard_normal((size, size)) for _ in range(3)]
    values = np.stack([np.fft.irfft2(np.fft.rfft2(mixture) / frequency, s=(size, size)) for mixture in mixtures], axis=-1)
    return np.clip(128 + 45 * (values - values.mean()) / values.std(), 0, 255).astype(np.uint8)


def write_jpgs(folder, count):
    """Write `count` jpg files of 1024 x 1024 pixels; only eight of them are different."""
    os.makedirs(folder)
    for number in range(min(8, count)):
        Image.fromarray(photograph_like(SOURCE_SIZE, number)).save(os.path.join(folder, f"{number:05d}.jpg"), quality=92)
    for number in range(8, count):
        os.link(os.path.join(folder, f"{number % 8:05d}.jpg"), os.path.join(folder, f"{number:05d}.jpg"))


def pillow_rate(paths):
    """Images per second that one process decodes, resizes and encodes with Pillow alone."""
    start = time.perf_counter()
    for path in paths:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((STORED_SIZE, STORED_SIZE), Image.Resampling.LANCZOS)
        resized.save(io.BytesIO(), "PNG")
    return len(paths) / (time.perf_counter() - start)


def prepare_rate(folder, images_dir, count):
    """Images per second of a whole preparation with one process per core; leaves its dataset in `folder`/own."""
    shutil.rmtree(os.path.join(folder, "own"), ignore_errors=True)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        cli.prepare(cli.options_for("own", data_dir=folder, images_dir=images_dir, format="jpg", resolution=STORED_SIZE, max_images=count))
    return count / (time.perf_counter() - start)


def benchmark_convert(folder, images_dir, count, rounds):
    """Conversion of jpg files from 1024 to 256 pixels, and the size of the records."""
    paths = sources.find_files(images_dir, sources.EXTENSIONS["jpg"])[0][:count]
    ours, ceilings = [], []
    for _ in range(rounds):
        ceilings.append(CORES * pillow_rate(paths[:max(8, count // 4)]))
        ours.append(prepare_rate(folder, images_dir, len(paths)))
    ceiling = max(ceilings)
    print(f"convert {SOURCE_SIZE} jpg to {STORED_SIZE} png: {max(ours):.1f} images/s of {ceiling:.1f} (Pillow alone x {CORES} cores): "
          f"{max(ours) / ceiling:.0%}, goal 80%")
    size = sum(shard.bytes for shard in manifest.load(os.path.join(folder, "own")).shards)
    print(f"png records: {size / (len(paths) * 3 * STORED_SIZE ** 2):.0%} of raw, goal 60% on photographs")


def benchmark_read(folder, rounds):
    """Batches of 256 x 256 PNG records against bare PNG decoding in the same number of threads."""
    dataset = Dataset(os.path.join(folder, "own"), num_threads=CORES)
    files = [pictures.encode(pixels.transpose(1, 2, 0), "png") for pixels in dataset.read(range(min(64, dataset.count)))]
    number = 512

    def decode(data):
        with Image.open(io.BytesIO(data)) as image:
            image.load()

    ours, ceilings = [], []
    for _ in range(rounds):
        with ThreadPoolExecutor(CORES) as pool:
            start = time.perf_counter()
            list(pool.map(decode, (files * -(-number // len(files)))[:number]))
            ceilings.append(number / (time.perf_counter() - start))
        batches = dataset.batches(32, seed=0)
        next(batches)
        start = time.perf_counter()
        for _ in range(number // 32):
            next(batches)
        ours.append(number / (time.perf_counter() - start))
    print(f"read {STORED_SIZE} png records: {max(ours):.0f} images/s of {max(ceilings):.0f} (bare PNG decoding, {CORES} threads): "
          f"{max(ours) / max(ceilings):.0%}, goal 60%; a full-width training step may use a quarter of it, {max(ours) / 4:.0f} images/s")


def benchmark_scenes(count):
    """Scenes drawn by one process."""
    for resolution in (32, 64, 256):
        number = max(4, count * 32 // resolution)
        scenes.draw_scene(0, 0, resolution)
        start = time.process_time()
        for index in range(number):
            scenes.draw_scene(0, index, resolution)
        print(f"scenes {resolution} x {resolution}: {number / (time.process_time() - start):.0f} images/s per core (processor time)")


def main(argv):
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(PARTS), help=f"comma-separated list of {', '.join(PARTS)}")
    parser.add_argument("--count", type=int, default=256, help="pictures to convert (%(default)s)")
    parser.add_argument("--images-dir", help="folder of jpg photographs")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best one counts (%(default)s)")
    options = parser.parse_args(argv)
    parts = comma_list("--part", options.part, PARTS)
    with tempfile.TemporaryDirectory() as folder:
        images_dir = options.images_dir or os.path.join(folder, "jpg")
        if {"convert", "read"} & set(parts):
            if not options.images_dir:
                write_jpgs(images_dir, options.count)
            if "convert" in parts:
                benchmark_convert(folder, images_dir, options.count, options.rounds)
            else:
                prepare_rate(folder, images_dir, options.count)
        if "read" in parts:
            benchmark_read(folder, options.rounds)
        if "scenes" in parts:
            benchmark_scenes(options.count)


if __name__ == "__main__":
    sys.exit(run_main(main))
