"""Sliced Wasserstein distance on Laplacian pyramid patches (Karras et al. 2018, "Progressive Growing of GANs", section 5). Pure NumPy.

Each image is decomposed into a Laplacian pyramid, from its full size down to 16. From every level, 128 random patches of 7×7 pixels are
cut, and each set of patches is normalized by its own mean and standard deviation per colour channel. The sliced Wasserstein distance of
two sets is the mean, over random directions, of the one-dimensional transport cost between the projected patches, times 1000 as published.

Shape letters: N images, C channels, H, W height and width, R patches in a set, F = C·7·7 numbers in a patch, M directions.
"""

import numpy as np

from metrics.metric_base import Metric, register
from metrics.rows import Rows, batches_of, disk_bytes
from metrics.stopping import stop_if_asked
from metrics.streams import image_stream

PATCH = 7
PATCHES_PER_IMAGE = 128
DIRECTIONS = 128
REPEATS = 4
MINIMUM_SIZE = 16
MAXIMUM_IMAGES = 16384
SCALE = 1000.0
PROJECTION_ELEMENTS = 1 << 25  # floats in memory at once for the projections of one set


def pyramid_sizes(height, width):
    """Sizes (height, width) of the pyramid's levels: halved, rounding up, while the shorter side stays at least MINIMUM_SIZE."""
    sizes = [(height, width)]
    while min(sizes[-1]) // 2 >= MINIMUM_SIZE:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def _patch_rows(count, shape):
    """(number, length) of the patches of `count` images of a shape (C, H, W) on each level."""
    return count * PATCHES_PER_IMAGE, shape[0] * PATCH * PATCH


def _blur(images, axis):
    """Binomial filter (1, 4, 6, 4, 1) / 16 along one axis, mirrored at the border."""
    size = images.shape[axis]
    padded = np.pad(images, [(2, 2) if index == axis else (0, 0) for index in range(4)], mode="reflect")

    def shifted(offset):
        return padded.take(range(offset, offset + size), axis=axis)

    return (shifted(0) + shifted(4)) * np.float32(1 / 16) + (shifted(1) + shifted(3)) * np.float32(1 / 4) + shifted(2) * np.float32(3 / 8)


def pyramid_down(images):
    """Blur and keep every second row and column: [N, C, H, W] -> [N, C, ceil(H/2), ceil(W/2)]."""
    rows = _blur(images, 2)[:, :, ::2]  # [N, C, H/2, W]
    return _blur(rows, 3)[:, :, :, ::2]  # [N, C, H/2, W/2]


def _expand(images, axis, size):
    """Zero insertion and blur along one axis, computed as two phases; mirrored at the border of the zero-inserted signal."""
    images = np.moveaxis(images, axis, -1)
    right = images[..., -1:] if size % 2 == 0 else images[..., -2:-1]
    before = np.concatenate([images[..., 1:2], images[..., :-1]], axis=-1)
    after = np.concatenate([images[..., 1:], right], axis=-1)
    expanded = np.empty(images.shape[:-1] + (2 * images.shape[-1],), np.float32)
    expanded[..., 0::2] = (before + after) * np.float32(1 / 8) + images * np.float32(3 / 4)
    expanded[..., 1::2] = (images + after) * np.float32(1 / 2)
    return np.moveaxis(expanded[..., :size], -1, axis)


def pyramid_up(images, height, width):
    """Insert zeros and blur with 4 times the filter: [N, C, ceil(H/2), ceil(W/2)] -> [N, C, H, W]."""
    return _expand(_expand(images, 2, height), 3, width)


def laplacian_pyramid(images, sizes):
    """Levels of a Laplacian pyramid; the last one is the low-pass remainder.

    Args:
        images: float32 [N, C, H, W].
        sizes: list of (height, width) from `pyramid_sizes`.

    Returns:
        List of float32 [N, C, h, w], one per size; the images are the telescoped sum of `level + pyramid_up(next)`.
    """
    levels = []
    for height, width in sizes[:-1]:
        smaller = pyramid_down(images)
        levels.append(images - pyramid_up(smaller, height, width))
        images = smaller
    return levels + [images]


def cut_patches(level, centers):
    """Patches around the given pixels.

    Args:
        level: float32 [C, H, W].
        centers: int [P, 2], (row, column), at least 3 pixels from each border.

    Returns:
        float32 [P, F], channel after channel.
    """
    offsets = np.arange(PATCH) - PATCH // 2
    rows = (centers[:, 0, None] + offsets)[:, :, None]  # [P, 7, 1]
    columns = (centers[:, 1, None] + offsets)[:, None, :]  # [P, 1, 7]
    patches = level[:, rows, columns]  # [C, P, 7, 7]
    return patches.transpose(1, 0, 2, 3).reshape(len(centers), -1)  # [P, F]


class PatchSets:
    """Collects patches of images, one set per pyramid level.

    The positions of the patches of image i depend only on (seed, i): the batch size does not matter, and a set compared with itself has
    distance 0.
    """

    def __init__(self, count, shape, seed, folder=None):
        """
        Args:
            count: number of images that will be added.
            shape: (C, H, W) of an image.
            seed: int.
            folder: where large sets are stored while in use (see Rows).
        """
        channels, height, width = shape
        if min(height, width) < MINIMUM_SIZE:
            raise ValueError(f"images too small for patches: got {height}×{width}, expected at least {MINIMUM_SIZE}×{MINIMUM_SIZE}")
        self.seed = seed
        self.channels = channels
        self.sizes = pyramid_sizes(height, width)
        self.rows = [Rows(*_patch_rows(count, shape), folder) for _ in self.sizes]
        self.images = 0

    def add(self, images):
        """Add the next images, uint8 or float32 [N, C, H, W] with values 0..255."""
        levels = laplacian_pyramid(np.asarray(images, np.float32), self.sizes)
        for offset in range(len(images)):
            for number, (height, width) in enumerate(self.sizes):
                stream = image_stream(self.seed, f"swd-patches-{number}", self.images + offset)
                half = PATCH // 2
                rows = stream.randint(half, height - half, size=PATCHES_PER_IMAGE)
                columns = stream.randint(half, width - half, size=PATCHES_PER_IMAGE)
                self.rows[number].add(cut_patches(levels[number][offset], np.stack([rows, columns], axis=1)))
        self.images += len(images)


def _channel_statistics(patches, channels):
    """Mean and standard deviation per channel over a set of patches [R, F], each float64 [C]."""
    total = np.zeros(channels)
    squares = np.zeros(channels)
    for block in batches_of(patches):
        values = block.reshape(len(block), channels, -1).astype(np.float64)
        total += values.sum(axis=(0, 2))
        squares += np.square(values).sum(axis=(0, 2))
    numbers = len(patches) * patches.shape[1] // channels
    mean = total / numbers
    return mean, np.sqrt(np.maximum(squares / numbers - np.square(mean), 0))


def _sorted_projections(patches, directions, mean, deviation):
    """Sorted projections of the normalized patches, float32 [M, R]; the normalization is folded into the directions [M, F]."""
    per_channel = directions.reshape(len(directions), len(mean), -1)  # [M, C, 49]
    scale = 1 / np.where(deviation > 0, deviation, 1)
    weights = (per_channel * scale[:, None]).reshape(len(directions), -1).astype(np.float32)  # [M, F]
    offsets = (per_channel.sum(axis=2) @ (mean * scale)).astype(np.float32)  # [M]
    projections = np.empty((len(directions), len(patches)), np.float32)
    position = 0
    for block in batches_of(patches):
        projections[:, position : position + len(block)] = weights @ block.T - offsets[:, None]
        position += len(block)
    projections.sort(axis=1)
    return projections


def random_directions(count, size, stream):
    """Unit vectors, uniformly distributed on the sphere: float64 [count, size]."""
    directions = stream.randn(count, size)
    return directions / np.sqrt(np.square(directions).sum(axis=1, keepdims=True))


def sliced_wasserstein(patches_a, patches_b, channels, seed, directions=DIRECTIONS, repeats=REPEATS):
    """Sliced Wasserstein distance of two sets of patches, each normalized per channel.

    Args:
        patches_a, patches_b: float32 [R, F], the same number of each.
        channels: C; a patch stores channel after channel.
        seed: int, determines the directions.
        directions, repeats: M, and the number of sets of M directions to average over.

    Returns:
        The distance (float), without the factor 1000.

    Raises:
        ValueError: the sets have different shapes.
    """
    if patches_a.shape != patches_b.shape:
        raise ValueError(f"sets of patches must have equal shapes: got {patches_a.shape} and {patches_b.shape}")
    statistics_a = _channel_statistics(patches_a, channels)
    statistics_b = _channel_statistics(patches_b, channels)
    stream = image_stream(seed, "swd-directions", 0)
    every = np.concatenate([random_directions(directions, patches_a.shape[1], stream) for _ in range(repeats)])
    step = max(1, PROJECTION_ELEMENTS // len(patches_a))
    total = 0.0
    for start in range(0, len(every), step):
        stop_if_asked()
        part = every[start : start + step]
        difference = _sorted_projections(patches_a, part, *statistics_a)
        difference -= _sorted_projections(patches_b, part, *statistics_b)
        total += np.abs(difference, out=difference).mean(axis=1, dtype=np.float64).sum()
    return total / len(every)


@register
class SlicedWasserstein(Metric):
    """swd: needs no feature network; as many reals as fakes, at most 16,384."""

    name = "swd"
    minimum = 1
    minimum_size = MINIMUM_SIZE
    cached = False  # cutting the patches of the reals again is faster than reading them from disk
    parameters = {"patches_per_image": PATCHES_PER_IMAGE, "directions": REPEATS * DIRECTIONS}

    def counts(self, reals, fakes):
        return (min(reals, fakes, MAXIMUM_IMAGES),) * 2

    def collector(self, count, shape, options):
        return PatchSets(count, shape, options.seed, options.cache_folder())

    def disk_bytes(self, count, shape):
        return len(pyramid_sizes(*shape[1:])) * disk_bytes(*_patch_rows(count, shape))

    def score(self, reals, fakes, context):
        distances = [
            sliced_wasserstein(real.array, fake.array, reals.channels, context.options.seed) * SCALE
            for real, fake in zip(reals.rows, fakes.rows)
        ]
        scores = {"swd": float(np.mean(distances))}
        scores.update((f"swd_{max(size)}", distance) for size, distance in zip(reals.sizes, distances))
        return scores
