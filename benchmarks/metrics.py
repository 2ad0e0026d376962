"""Speed and memory of the metrics: python -m benchmarks.metrics [--part fid,pr,features] [--count N]

Each part prints our rate beside the ceiling measured in the same run: SciPy's matrix root, the machine's float32 matrix product, the bare
feature network.
"""

import argparse
import os
import resource
import tempfile
import time

import numpy as np

PARTS = ("pr", "fid", "features")


def seconds_of(function):
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_memory():
    """Largest resident size of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def benchmark_fid(width):
    """FID's matrix root at D features, full rank, and its error on a rank-deficient pair."""
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
    """Precision and recall of count × count features against the rate of the float32 matrix product."""
    from metrics import precision_recall

    stream = np.random.RandomState(0)
    reals, fakes = (np.maximum(stream.standard_normal((count, width)), 0).astype(np.float32) for _ in range(2))
    before = peak_memory()
    rows = reals[:2048]
    product = min(seconds_of(lambda: rows @ reals.T) for _ in range(2))
    ceiling = 2 * len(rows) * count * width / product

    def evaluate():
        radii = [precision_recall.manifold_radii2(own, 3) for own in (reals, fakes)]
        precision_recall.manifold_overlap(reals, fakes, *radii)

    rate = 3 * 2 * count**2 * width / seconds_of(evaluate)
    print(
        f"precision/recall, {count} × {count} × {width}: {rate / 1e9:.0f} GFLOP/s of {ceiling / 1e9:.0f} of the matrix product "
        f"({rate / ceiling:.0%}); peak memory {peak_memory():.2f} GB, of which {before:.2f} GB before"
    )


def benchmark_features(count):
    """Images through the whole pass (reading, feature network of full size with random weights, collecting) against the network alone."""
    from metrics import images, vgg16
    from metrics.rows import Rows
    from tests.metrics_standins import ArrayDataset, vgg16_standin

    dataset = ArrayDataset(np.random.RandomState(0).randint(0, 256, (count, 3, 64, 64)).astype(np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "vgg.h5")
        vgg16_standin(path, side=224, widths=(64, 128, 256, 512, 512), dense=256)
        network = vgg16.Vgg16(path, floating=False)
    batch = np.moveaxis(dataset.images, 1, -1)[: min(count, images.CHUNK_IMAGES)].copy()
    network(batch)

    def whole_pass():
        rows = Rows(count, 256)
        for read in images.chunks(images.Reals(dataset, count, False, False, 0, "clean"), count):
            rows.add(network(np.moveaxis(read, 1, -1))["features"])

    rounds = [(seconds_of(lambda: network(batch)), seconds_of(whole_pass)) for _ in range(3)]  # alternating: a busy machine slows both
    bare, passed = (min(times) for times in zip(*rounds))
    bare, passed = bare / len(batch), passed / count
    network.close()
    print(f"features (VGG-16, 224×224): {1 / passed:.2f} images/s of {1 / bare:.2f} of the bare network ({bare / passed:.0%})")


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(PARTS), help=f"comma list of {', '.join(PARTS)}")
    parser.add_argument("--count", type=int, default=10000, help="features of each kind for precision and recall")
    parser.add_argument("--width", type=int, default=2048, help="features of an image for FID")
    parser.add_argument("--images", type=int, default=16, help="images for the feature extraction")
    options = parser.parse_args()
    parts = options.part.split(",")
    if "pr" in parts:  # first: its memory is reported
        benchmark_precision_recall(options.count, 4096)
    if "fid" in parts:
        benchmark_fid(options.width)
    if "features" in parts:
        benchmark_features(options.images)


if __name__ == "__main__":
    main()
