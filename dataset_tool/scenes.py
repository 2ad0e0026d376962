"""Procedural multi-object scenes: shaded spheres, cubes and cylinders on a ground plane, with soft shadows.

A scene is a pure function of (seed, index, resolution): `sample_scene` samples its description, `draw_scene` renders it (by ray casting:
scene_render). Lengths are in scene units (an object is about one unit wide), z points up, the ground is z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataset_tool.scene_render import render

SHAPES = ("sphere", "cube", "cylinder")
COLOURS = ((0.62, 0.04, 0.05), (0.04, 0.16, 0.62), (0.06, 0.40, 0.09), (0.85, 0.58, 0.05), (0.36, 0.07, 0.52), (0.04, 0.48, 0.52),
           (0.80, 0.22, 0.02), (0.30, 0.30, 0.32))                                   # linear RGB
MIN_OBJECTS, MAX_OBJECTS = 3, 6


@dataclass(frozen=True)
class SceneObject:
    """An object standing on the ground: radius is half its width, height its extent in z, angle its rotation about z in radians."""

    shape: str
    colour: tuple
    gloss: float
    x: float
    y: float
    radius: float
    height: float
    angle: float

    @property
    def centre(self):
        """[3], centre of the object."""
        return np.array([self.x, self.y, self.height / 2])

    @property
    def footprint(self):
        """Radius of the smallest upright cylinder around the object."""
        return self.radius * (1.4143 if self.shape == "cube" else 1.0)


@dataclass(frozen=True)
class SceneDescription:
    """Objects, camera (position [3]; right, up and forward [3, 3]; tangent of half the field of view) and centre of the light [3]."""

    objects: tuple
    eye: np.ndarray
    axes: np.ndarray
    tangent: float
    light: np.ndarray

    def project(self, points):
        """Project points [n, 3] to the image: [n, 2] in [-1, 1], x to the right, y downwards."""
        seen = (points - self.eye) @ self.axes.T
        return np.stack([seen[:, 0], -seen[:, 1]], axis=1) / (seen[:, 2:] * self.tangent)


@dataclass(frozen=True)
class Scene:
    """A drawn scene: image uint8 [H, W, 3]; counts float32 [3], objects per shape; mask uint8 [H, W], 0 ground, i the i-th object."""

    image: np.ndarray
    counts: np.ndarray
    mask: np.ndarray
    description: SceneDescription


def draw_scene(seed, index, resolution):
    """Draw scene `index` of the dataset `seed` as a square image of `resolution` pixels. Returns a Scene."""
    description = sample_scene(seed, index)
    image, mask = render(description, resolution)
    counts = np.array([sum(item.shape == shape for item in description.objects) for shape in SHAPES], np.float32)
    return Scene(image, counts, mask, description)


def sample_scene(seed, index):
    """Sample the SceneDescription of scene `index` of the dataset `seed` (integers >= 0)."""
    # RandomState's streams are frozen: the same scenes with every NumPy version, which Generator does not guarantee.
    rng = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, index])
    camera = _sample_camera(rng)
    objects = _place_objects(rng, camera, rng.randint(MIN_OBJECTS, MAX_OBJECTS + 1))
    return SceneDescription(objects, camera.eye, camera.axes, camera.tangent, camera.light)


def _sample_camera(rng):
    azimuth, elevation, distance = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(27, 40)), rng.uniform(8.6, 10.2)
    outward = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    eye = np.append(rng.uniform(-0.35, 0.35, 2), 0.3) + distance * outward
    sun = azimuth + rng.choice([-1, 1]) * rng.uniform(0.6, 1.4)      # to one side of the camera, so that the shadows are visible
    light = np.array([6.0 * np.cos(sun), 6.0 * np.sin(sun), rng.uniform(7.5, 9.5)])
    return SceneDescription((), eye, np.stack([right, np.cross(outward, right), -outward]), 0.36, light)


def _place_objects(rng, camera, count):
    objects = []
    spread = 2.4
    while len(objects) < count:
        item = _sample_object(rng, spread)
        apart = all(np.hypot(item.x - other.x, item.y - other.y) > item.footprint + other.footprint + 0.1 for other in objects)
        if apart and np.abs(camera.project(item.centre[None])).max() < 0.80:
            objects.append(item)
        else:
            spread = min(spread + 0.01, 4.0)   # crowded ground: spread out until all objects fit
    return tuple(objects)


def _sample_object(rng, spread):
    shape = SHAPES[rng.randint(len(SHAPES))]
    tint = rng.uniform(0.85, 1.15) * np.array(COLOURS[rng.randint(len(COLOURS))])
    radius = rng.uniform(0.52, 0.88) * {"sphere": 1.0, "cube": 0.80, "cylinder": 0.85}[shape]
    height = radius * (rng.uniform(1.5, 2.2) if shape == "cylinder" else 2)
    x, y = rng.uniform(-spread, spread, 2)
    return SceneObject(shape, tuple(np.clip(tint, 0, 1)), float(rng.choice([0.1, 1.0])), x, y, radius, height, rng.uniform(0, np.pi / 2))
