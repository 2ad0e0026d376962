"""Pictures of 32 pixels that small networks can learn in minutes."""

import os

import numpy as np
from PIL import Image

SIZE = 32
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


def write_shapes(folder, count=1000):
    """Write folders of pictures: a bright disk, square or cross in some colour on a dark background."""
    rng = np.random.RandomState(0)
    for index in range(count):
        y, x = rng.uniform(0.35, 0.65, size=2) * SIZE
        radius, (down, right) = rng.uniform(0.18, 0.28) * SIZE, (np.abs(ROWS - y), np.abs(COLUMNS - x))
        kind = index % 3
        inside = [np.hypot(down, right) < radius, np.maximum(down, right) < radius * 0.85,
                  (np.minimum(down, right) < radius / 3) & (np.maximum(down, right) < radius * 1.2)][kind]  # fmt: skip
        picture = np.where(inside[..., np.newaxis], rng.randint(130, 256, size=3), rng.randint(90, size=3)).astype(np.uint8)
        path = os.path.join(folder, ["disk", "square", "cross"][kind])
        os.makedirs(path, exist_ok=True)
        Image.fromarray(picture).save(os.path.join(path, f"{index:04d}.png"))


def objects(count=3000):
    """Like CIFAR-10 to a network: ten classes, one shaded object near the middle, a background with the spectrum of photographs.

    Returns:
        (pictures uint8 [count, 3, 32, 32], classes int64 [count]).
    """
    rng, classes = np.random.RandomState(0), np.arange(count) % 10
    slope = rng.uniform(-30, 30, [count, 1, 1, 1]) * np.linspace(-1, 1, SIZE)[:, np.newaxis]
    grounds = _colours(rng, count, 20) + 22 * _texture(rng, count) + slope  # [count, 3, 32, 32]
    colours = _colours(rng, count, 40)
    pictures = np.empty([count, 3, SIZE, SIZE], np.uint8)
    for picture, ground, colour, kind in zip(pictures, grounds, colours, classes):
        (y, x), radius, angle = rng.uniform(13, 19, size=2), rng.uniform(7, 12), rng.uniform(0, np.pi)
        right, down = (COLUMNS - x) / radius, (ROWS - y) / radius
        along = np.abs(right * np.cos(angle) + down * np.sin(angle))
        across = np.abs(down * np.cos(angle) - right * np.sin(angle)) / [1, 0.7, 0.5, 0.85][kind % 4]
        distance = [np.hypot(along, across), np.maximum(along, across), along + across][kind % 3]
        cover = 1 / (1 + np.exp(8 * (distance - 1)))
        picture[:] = np.clip(ground * (1 - cover) + colour * (1 - 0.15 * (right + down)) * cover, 0, 255)
    return pictures, classes


def _colours(rng, count, spread):
    """Grays with a little colour [count, 3, 1, 1]."""
    return rng.uniform(60, 200, [count, 1, 1, 1]) + spread * rng.randn(count, 3, 1, 1)


def _texture(rng, count):
    """Noise with amplitudes falling as frequency^-1.7, mostly gray, of variance 1: [count, 3, 32, 32]."""
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE), np.fft.fftfreq(SIZE)))
    frequencies[0, 0] = np.inf
    noise = np.fft.ifft2(np.fft.fft2(rng.randn(count, 3, SIZE, SIZE)) / frequencies**1.7).real
    noise /= noise.std(axis=(2, 3), keepdims=True)
    return 0.8 * noise[:, :1] + 0.2 * noise
