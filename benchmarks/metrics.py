"""Speed and memory of the metrics: python -m benchmarks.metrics [--part fid,pr,features] [--count N]

Each part prints our rate beside a reference measured in the same run: SciPy's matrix square root, the machine's float32 matrix product, or
the bare feature network.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time

import h5py
import numpy as np
from PIL import Image

from benchmarks import comma_list
from dnnlib import run_main
from metrics import images
from metrics.weights import WEIGHT_FILES

PARTS = ("pr", "fid", "features")
ROUNDS = 3


def seconds_of(function):
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def benchmark_fid(width):
    """FID's matrix square root for full-rank covariances of D features, and its error on a rank-deficient pair."""
    import scipy.linalg

    from metrics import fid

    stream = np.random.RandomState(0)
    mixing = stream.randn(width, width) / np.sqrt(width)
    one, other = (np.cov((stream.randn(3 * width, width) @ mixing).T) for _ in range(2))
    ours = seconds_of(lambda: fid.root_trace(one, other))
    roots = []
    scipys = seconds_of(lambda: roots.append(np.trace(np.real(scipy.linalg.sqrtm(one @ other)))))
    error = abs(fid.root_trace(one, other) / roots[0] - 1)
    print(f"fid root, D {width}: {ours:.1f} s; scipy.linalg.sqrtm {scipys:.1f} s: {scipys / ours:.1f}×; difference {error:.1e}")
    x, y = (stream.randn(width // 8, width) for _ in range(2))
    x, y = x - x.mean(0), y - y.mean(0)
    exact = np.linalg.svd(x @ y.T, compute_uv=False).sum() / (len(x) - 1)
    print(f"fid root, rank {len(x) - 1}: relative error {abs(fid.root_trace(np.cov(x.T), np.cov(y.T)) / exact - 1):.1e}")


def benchmark_precision_recall(count, width):
    """Precision and recall for count × count features against the rate of the float32 matrix product."""
    from metrics import precision_recall
    from training.status import peak_memory_gb

    stream = np.random.RandomState(0)
    reals, fakes = (np.maximum(stream.standard_normal((count, width)), 0).astype(np.float32) for _ in range(2))
    before = peak_memory_gb()
    rows = reals[:2048]
    product = min(seconds_of(lambda: rows @ reals.T) for _ in range(2))
    ceiling = 2 * len(rows) * count * width / product

    def evaluate():
        radii = [precision_recall.manifold_radii2(own, 3) for own in (reals, fakes)]
        precision_recall.manifold_overlap(reals, fakes, *radii)

    rate = 3 * 2 * count**2 * width / seconds_of(evaluate)
    print(
        f"precision/recall, {count} × {count} × {width}: {rate / 1e9:.0f} GFLOP/s of {ceiling / 1e9:.0f} of the matrix product "
        f"({rate / ceiling:.0%}); peak memory {peak_memory_gb():.2f} GB, of which {before:.2f} GB before"
    )


def vgg16_standin(path, side=32, widths=(4, 4, 6, 6, 8), dense=12, name_type=bytes, seed=0):
    """Write a narrow VGG-16 with random weights in Keras's .h5 layout.

    Args:
        path: of the file.
        side: input height and width, a multiple of 32; 224 in the real network.
        widths: channels of the five blocks.
        dense: outputs of the fully connected layers.
        name_type: bytes or str, as older and newer h5py return the names.
        seed: for the weights.

    Returns:
        List of (layer name, kernel, bias) in order.
    """
    stream = np.random.RandomState(seed)
    layers, channels = [], 3
    for block, (width, repeats) in enumerate(zip(widths, (2, 2, 3, 3, 3)), 1):
        for number in range(1, repeats + 1):
            kernel = stream.randn(3, 3, channels, width) * np.sqrt(2 / (9 * channels))
            layers.append((f"block{block}_conv{number}", kernel, 0.1 * stream.randn(width)))
            channels = width
        layers.append((f"block{block}_pool", None, None))
    layers.append(("flatten", None, None))
    inputs = (side // 32) ** 2 * channels
    for name, outputs in (("fc1", dense), ("fc2", dense), ("predictions", 5)):
        layers.append((name, stream.randn(inputs, outputs) * np.sqrt(2 / inputs), 0.1 * stream.randn(outputs)))
        inputs = outputs
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() if name_type is bytes else name for name, _, _ in layers]
        for name, kernel, bias in layers:
            group = file.create_group(name)
            weights = [] if kernel is None else [(f"{name}_W_1:0", kernel), (f"{name}_b_1:0", bias)]
            names = [weight.encode() for weight, _ in weights] if name_type is bytes else [weight for weight, _ in weights]
            group.attrs["weight_names"] = np.array(names, dtype="S64") if name_type is bytes or not names else names
            for weight, value in weights:
                group.create_dataset(weight, data=value.astype(np.float32))
    return layers


@contextlib.contextmanager
def feature_pass_folder(count):
    """A folder with `count` pictures of 256 pixels as a dataset ("own") and as PNG files ("pictures"), and a VGG-16 with full-size
    convolutions and random weights ("features")."""
    from benchmarks import data
    from training.dataset import Dataset

    with tempfile.TemporaryDirectory() as folder:
        data.write_jpgs(os.path.join(folder, "jpg"), count)
        data.prepare_rate(folder, os.path.join(folder, "jpg"), count)
        os.mkdir(os.path.join(folder, "pictures"))
        for index, image in enumerate(Dataset(os.path.join(folder, "own")).read(np.arange(count))):
            Image.fromarray(image.transpose(1, 2, 0)).save(os.path.join(folder, "pictures", f"{index:06d}.png"))
        os.mkdir(os.path.join(folder, "features"))
        path = os.path.join(folder, "features", WEIGHT_FILES["vgg16"].name)
        vgg16_standin(path, side=224, widths=(64, 128, 256, 512, 512), dense=256)
        yield folder


def pass_rates(folder, count, number):
    """Images per second of the bare network, a pass over the dataset and a pass over the folder, `count` images each, with a new cache."""
    from metrics import evaluation, metric_base
    from training.dataset import Dataset

    dataset = Dataset(os.path.join(folder, "own"))
    (metric,) = metric_base.parse_names("pr")
    options = metric_base.Options(count, features_dir=os.path.join(folder, "features"), images_dir=os.path.join(folder, "pictures"),
                                  cache_dir=os.path.join(folder, f"cache-{number}"), progress=False)  # fmt: skip
    pictures = images.ImageFolder(options.images_dir, dataset, images.CLEAN)
    context = evaluation.Context([metric], None, dataset, options, {"fakes": pictures})
    network = context.feature_network("vgg16")
    batch = dataset.read(np.arange(min(count, images.CHUNK_IMAGES)))
    network(batch)
    rates = [len(batch) / seconds_of(lambda: network(batch))]
    rates += [count / seconds_of(lambda kind=kind: context.collected(kind, metric)) for kind in ("reals", "fakes")]
    context.close()
    return rates


def benchmark_features(count):
    """The evaluation's whole pass over images (reading, decoding, feature network, collecting) against the network alone."""
    with feature_pass_folder(count) as folder:
        rounds = [pass_rates(folder, count, number) for number in range(ROUNDS)]  # alternating, so that other load slows all three
    bare, *passes = map(max, zip(*rounds))
    for title, rate in zip(("a dataset", "a folder of PNG files"), passes):
        share = f"{rate / bare:.0%}, goal 85%"
        print(f"features of {title} (VGG-16, 256 to 224 pixels): {rate:.2f} images/s of {bare:.2f} of the bare network: {share}")


def main(argv):
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(PARTS), help=f"comma-separated list of {', '.join(PARTS)}")
    parser.add_argument("--count", type=int, default=10000, help="feature vectors of each kind for precision and recall")
    parser.add_argument("--width", type=int, default=2048, help="features per image for FID")
    parser.add_argument("--images", type=int, default=48, help="images for the feature extraction")
    options = parser.parse_args(argv)
    parts = comma_list("--part", options.part, PARTS)
    if "pr" in parts:  # first: its memory is reported
        benchmark_precision_recall(options.count, 4096)
    if "fid" in parts:
        benchmark_fid(options.width)
    if "features" in parts:
        benchmark_features(options.images)


if __name__ == "__main__":
    sys.exit(run_main(main))
