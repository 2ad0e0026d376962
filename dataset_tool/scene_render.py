"""Renders scenes by ray casting in NumPy.

All three shapes are convex, so a ray intersects each in an interval, and one function per shape serves camera rays and shadow rays alike.
Rays are cast on a grid several times finer than the image and averaged; every ray samples its own point of a disc-shaped light, so that
the average gives soft shadows. Everything is computed in windows around the projections of the objects, in float32.
"""

from __future__ import annotations

import functools

import numpy as np

LIGHT_RADIUS = 1.3
GROUND = np.array([0.43, 0.42, 0.41], np.float32)
SKY = np.array([0.90, 0.95, 1.05], np.float32)
AMBIENT, KEY = 0.36, 0.74
OCCLUSION_REACH = 3.3      # in radii of the occluder; beyond it the occlusion is below OCCLUSION_FLOOR
OCCLUSION_FLOOR = 0.028


def render(scene, resolution):
    """Draw a SceneDescription. Returns (image uint8 [H, W, 3], mask uint8 [H, W]: 0 ground, i the i-th object)."""
    finer = 3 if resolution <= 256 else 2
    surface = _Surface(scene, resolution * finer)
    with np.errstate(divide="ignore", invalid="ignore"):     # rays parallel to a slab give infinities, which compare correctly
        for number, item in enumerate(scene.objects, start=1):
            surface.add_object(number, item)
        radiance = _shade(surface, resolution, finer)                                         # [3, size, size]
    mean = radiance.reshape(3, resolution, finer, resolution, finer).mean(axis=(2, 4))         # [3, H, W]
    image = (np.clip(mean, 0, 1) ** np.float32(1 / 2.2) * 255 + 0.5).astype(np.uint8)
    mask = surface.owner[finer // 2::finer, finer // 2::finer].copy()
    return np.ascontiguousarray(image.transpose(1, 2, 0)), mask


class _Surface:
    """What each camera ray hits first: point and unit normal [3, size, size], owner (0 ground, i object i) and depth [size, size]."""

    def __init__(self, scene, size):
        self.scene, self.size = scene, size
        grid = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1) * np.float32(scene.tangent)
        right, up, forward = scene.axes.astype(np.float32)[:, :, None, None]
        self.direction = forward + right * grid[None, None, :] - up * grid[None, :, None]        # [3, size, size]
        self.eye = scene.eye.astype(np.float32)[:, None, None]
        self.depth = -self.eye[2] / self.direction[2]        # the camera looks down: every ray hits the ground
        self.point = self.eye + self.depth * self.direction
        self.normal = np.zeros_like(self.point)
        self.normal[2] = 1
        self.owner = np.zeros((size, size), np.uint8)

    def add_object(self, number, item):
        """Put object `number` in front of what it hides."""
        window = self.window(_ring(item, item.footprint, 0), _ring(item, item.footprint, item.height))
        near, far = _interval(item, self.eye, self.direction[window])
        hit = (near < far) & (near < self.depth[window[1:]])
        rows, columns = np.nonzero(hit)
        near, rows, columns = near[hit], rows + window[1].start, columns + window[2].start
        point = self.eye[:, :, 0] + near * self.direction[:, rows, columns]                      # [3, n]
        self.depth[rows, columns] = near
        self.point[:, rows, columns] = point
        self.normal[:, rows, columns] = _normals(item, point)
        self.owner[rows, columns] = number

    def window(self, *points):
        """Slices of the [3, size, size] grids that cover the projection of points [n, 3]."""
        seen = (self.scene.project(np.concatenate(points)) + 1) / 2 * self.size
        first = np.clip(np.floor(seen.min(0)), 0, self.size).astype(int)
        last = np.clip(np.ceil(seen.max(0)), 0, self.size).astype(int)
        return slice(None), slice(first[1], last[1]), slice(first[0], last[0])


def _ring(item, radius, z, shift=(0, 0)):
    """Corners [8, 3] of an octagon around a circle about the object's axis at height z, moved sideways by `shift`."""
    angles = np.arange(8) * (np.pi / 4)
    outer = radius / np.cos(np.pi / 8)
    return np.stack([item.x + shift[0] + outer * np.cos(angles), item.y + shift[1] + outer * np.sin(angles), np.full(8, float(z))], axis=1)


def _interval(item, origin, direction):
    """Where the rays origin + t · direction ([3, ...] each, broadcast) are inside the object: (near, far), empty where near >= far."""
    x, y, z = origin[0] - np.float32(item.x), origin[1] - np.float32(item.y), origin[2]
    if item.shape == "sphere":
        return _round_interval((x, y, z - np.float32(item.radius)), direction, item.radius)
    if item.shape == "cylinder":
        sides = [_round_interval((x, y), direction[:2], item.radius)]
    else:
        cos, sin = np.float32(np.cos(item.angle)), np.float32(np.sin(item.angle))
        sides = [_slab(cos * x + sin * y, cos * direction[0] + sin * direction[1], -item.radius, item.radius),
                 _slab(cos * y - sin * x, cos * direction[1] - sin * direction[0], -item.radius, item.radius)]
    near, far = _slab(z, direction[2], 0, item.height)
    for side_near, side_far in sides:
        near, far = np.maximum(near, side_near), np.minimum(far, side_far)
    return near, far


def _slab(origin, direction, low, high):
    first, second = (np.float32(low) - origin) / direction, (np.float32(high) - origin) / direction
    return np.minimum(first, second), np.maximum(first, second)


def _round_interval(origin, direction, radius):
    squared = sum(d * d for d in direction)
    middle = -sum(o * d for o, d in zip(origin, direction)) / squared
    inside = middle * middle - (sum(o * o for o in origin) - np.float32(radius * radius)) / squared
    half = np.sqrt(np.maximum(inside, 0))            # a miss gives the empty interval [middle, middle]
    return middle - half, middle + half


def _normals(item, point):
    """Unit outward normals [3, n] at points [3, n] of the object's surface."""
    x, y, z = point[0] - np.float32(item.x), point[1] - np.float32(item.y), point[2]
    zero = np.zeros_like(x)
    if item.shape == "sphere":
        return np.stack([x, y, z - np.float32(item.radius)]) / np.float32(item.radius)
    top = z > item.height - 1e-3 * item.radius
    if item.shape == "cylinder":
        side = np.stack([x, y, zero]) / np.float32(item.radius)
    else:
        cos, sin = np.float32(np.cos(item.angle)), np.float32(np.sin(item.angle))
        across, along = cos * x + sin * y, cos * y - sin * x
        first = np.where(np.abs(across) > np.abs(along), np.sign(across), 0)
        second = np.where(first == 0, np.sign(along), 0)
        side = np.stack([cos * first - sin * second, sin * first + cos * second, zero])
    return np.where(top, np.array([[0], [0], [1]], np.float32), side)


@functools.lru_cache(maxsize=4)
def _light_offsets(resolution, finer):
    """Points [2, size, size] of the unit disc, one per ray: stratified within a pixel, rotated from pixel to pixel against banding."""
    rng = np.random.RandomState(0)
    cells = np.stack(np.meshgrid(np.arange(finer), np.arange(finer), indexing="ij")).reshape(2, -1)
    strata = (cells[:, [rng.permutation(finer * finer) for _ in range(64)]].reshape(2, 8, 8, finer, finer) + 0.5) / finer
    tiles = -(-resolution // 8)
    square = np.tile(strata.transpose(0, 1, 3, 2, 4).reshape(2, 8 * finer, 8 * finer), (1, tiles, tiles))
    square = square[:, :resolution * finer, :resolution * finer]
    turn = np.repeat(np.repeat(rng.uniform(0, 1, (resolution, resolution)), finer, 0), finer, 1)
    radius, angle = np.sqrt(square[0]), 2 * np.pi * (square[1] + turn)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)]).astype(np.float32)


def _shade(surface, resolution, finer):
    """Linear RGB [3, size, size] leaving every hit point towards the camera."""
    light = surface.scene.light.astype(np.float32)[:, None, None] - surface.point
    light[:2] += LIGHT_RADIUS * _light_offsets(resolution, finer)
    lit, open_sky = _visibility(surface, light)
    light /= np.sqrt((light * light).sum(0))
    view = surface.direction / -np.sqrt((surface.direction ** 2).sum(0))                          # towards the camera
    normal = surface.normal
    up = 0.5 + 0.5 * normal[2]
    diffuse = KEY * lit * np.maximum((normal * light).sum(0), 0)
    albedo, gloss = _materials(surface)
    radiance = albedo * (diffuse + AMBIENT * open_sky * (up * SKY[:, None, None] + (1 - up) * GROUND[:, None, None]))
    for number in range(1, len(gloss)):
        rows, columns = np.nonzero(surface.owner == number)
        at = (slice(None), rows, columns)
        radiance[at] += gloss[number] * _gloss(normal[at], view[at], light[at], lit[rows, columns], open_sky[rows, columns])
    distance = surface.point[0] ** 2 + surface.point[1] ** 2
    return radiance / (1 + np.float32(0.006) * distance)


def _materials(surface):
    colours = np.stack([GROUND * 1.5] + [np.array(item.colour, np.float32) for item in surface.scene.objects])
    return colours[surface.owner].transpose(2, 0, 1), [0.0] + [item.gloss for item in surface.scene.objects]


def _gloss(normal, view, light, lit, open_sky):
    """Specular part [3, n] of a polished dielectric: highlight of the light, plus the sky by Schlick's approximation of Fresnel."""
    facing = np.clip((normal * view).sum(0), 0, 1)
    half = light + view
    highlight = lit * np.maximum((normal * half).sum(0) / np.sqrt((half * half).sum(0)), 0) ** 60
    reflected_up = np.clip(2 * facing * normal[2] - view[2], 0, 1)
    fresnel = 0.05 + 0.55 * (1 - facing) ** 5
    return 0.75 * highlight + fresnel * open_sky * reflected_up * SKY[:, None]


def _visibility(surface, light):
    """(lit, open_sky), both [size, size] in [0, 1]: whether the ray's point of the light is visible, and how much of the sky."""
    lit = np.ones(surface.owner.shape, np.float32)
    open_sky = np.ones_like(lit)
    scene = surface.scene
    for number, item in enumerate(scene.objects, start=1):
        # The shadow of the top on the ground from the light's centre, and how much the light's size widens it.
        stretch = item.height / (scene.light[2] - item.height)
        shift = (np.array([item.x, item.y]) - scene.light[:2]) * stretch
        tip = _ring(item, item.footprint * (1 + stretch) + LIGHT_RADIUS * stretch, 0, shift)
        window = surface.window(tip, _ring(item, item.footprint, 0), _ring(item, item.footprint, item.height))
        near, far = _interval(item, surface.point[window], light[window])
        lit[window[1:]][(near < far) & (far > 0) & (surface.owner[window[1:]] != number)] = 0

        reach = OCCLUSION_REACH * max(item.radius, item.height / 2)
        window = surface.window(_ring(item, reach, 0), _ring(item, reach, item.height))
        open_sky[window[1:]] *= 1 - _occlusion(item, surface, window) * (surface.owner[window[1:]] != number)
    return lit, open_sky


def _occlusion(item, surface, window):
    """Share of the sky that the object hides, approximated by a sphere of its mean size: cos · (r / distance)², with a smooth cutoff."""
    centre = item.centre.astype(np.float32)[:, None, None]
    towards = centre - surface.point[window]
    squared = (towards * towards).sum(0)
    radius = np.float32((item.radius + item.height / 2) / 2)
    hidden = (surface.normal[window] * towards).sum(0) * radius * radius / (squared * np.sqrt(squared))
    return np.clip(hidden - OCCLUSION_FLOOR, 0, 0.85)
