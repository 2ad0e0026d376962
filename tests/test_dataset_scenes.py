"""The procedural scenes: determinism, geometry against an independent projection, labels, masks, speed of sampling."""

import numpy as np
import pytest

from dataset_tool import scenes
from tests.dataset_helpers import prepare
from training.dataset import Dataset


def test_a_scene_is_a_function_of_seed_index_and_resolution():
    first, again = scenes.draw_scene(7, 3, 32), scenes.draw_scene(7, 3, 32)
    np.testing.assert_array_equal(first.image, again.image)
    for seed, index in ((8, 3), (7, 4), (7 + (1 << 32), 3)):
        assert not np.array_equal(first.image, scenes.draw_scene(seed, index, 32).image)
    assert scenes.draw_scene(7, 3, 64).description.objects == first.description.objects


def test_objects_stand_apart_in_view_and_are_counted():
    numbers, shapes = set(), set()
    for index in range(300):
        scene = scenes.sample_scene(0, index)
        objects = scene.objects
        numbers.add(len(objects))
        shapes.update(item.shape for item in objects)
        for number, item in enumerate(objects):
            for other in objects[:number]:
                assert np.hypot(item.x - other.x, item.y - other.y) > item.radius + other.radius
            assert np.abs(scene.project(item.centre[None])).max() < 1
    assert numbers == {3, 4, 5, 6} and shapes == set(scenes.SHAPES)
    for index in range(5):
        drawn = scenes.draw_scene(0, index, 16)
        assert drawn.counts.tolist() == [sum(item.shape == shape for item in drawn.description.objects) for shape in scenes.SHAPES]


def test_masks_show_the_objects_where_a_pinhole_camera_puts_them():
    """A ray marched in small steps through each object's defining inequality finds the same owner as the closed formulas."""
    size = 24
    for index in range(3):
        drawn = scenes.draw_scene(1, index, size)
        scene = drawn.description
        centre = np.float64(np.arange(size) * 3 + 1.5) * 2 / (3 * size) - 1        # the middle one of three rays per pixel
        x, y = np.meshgrid(centre * scene.tangent, centre * scene.tangent)
        rays = scene.axes[2] + x[..., None] * scene.axes[0] - y[..., None] * scene.axes[1]      # [H, W, 3]
        depth = np.linspace(4, 20, 2400)[:, None, None, None]
        points = scene.eye + depth * rays                                                      # [steps, H, W, 3]
        expected, nearest = np.zeros([size, size], int), np.full([size, size], np.inf)
        for number, item in enumerate(scene.objects, start=1):
            inside = _inside(item, points)
            first = np.where(inside.any(0), inside.argmax(0), np.inf)
            expected = np.where(first < nearest, number, expected)
            nearest = np.minimum(first, nearest)
        assert (expected != drawn.mask).mean() < 0.01       # steps miss grazed edges
        assert (expected > 0).mean() > 0.03


def _inside(item, points):
    x, y, z = points[..., 0] - item.x, points[..., 1] - item.y, points[..., 2]
    if item.shape == "sphere":
        return x * x + y * y + (z - item.radius) ** 2 < item.radius ** 2
    between = (z > 0) & (z < item.height)
    if item.shape == "cylinder":
        return between & (x * x + y * y < item.radius ** 2)
    cos, sin = np.cos(item.angle), np.sin(item.angle)
    return between & (np.abs(cos * x + sin * y) < item.radius) & (np.abs(cos * y - sin * x) < item.radius)


def test_objects_have_their_colours_and_cast_shadows():
    coloured = darker = 0
    for index in range(12):
        drawn = scenes.draw_scene(2, index, 48)
        image = drawn.image.astype(float)
        ground = image[drawn.mask == 0]
        darker += ground.mean(1).min() < 0.6 * np.median(ground.mean(1))
        assert np.percentile(np.abs(ground - ground.mean(1, keepdims=True)), 90) < 6      # gray, except for the edges of objects
        for number, item in enumerate(drawn.description.objects, start=1):
            seen = image[drawn.mask == number]
            if len(seen) > 20 and max(item.colour) > 3 * min(item.colour):
                coloured += 1
                assert np.argmax(seen.mean(0)) == np.argmax(item.colour)
    assert coloured > 15 and darker >= 10


@pytest.mark.parametrize("resolution", [4, 16, 128, 512])
def test_any_resolution(resolution):
    drawn = scenes.draw_scene(0, 0, resolution)
    assert drawn.image.shape == (resolution, resolution, 3) and drawn.image.dtype == np.uint8
    assert drawn.mask.shape == (resolution, resolution) and drawn.image.std() > 5


def test_masks_end_with_their_pictures_where_the_ratio_cuts_objects(tmp_path, capsys):
    arguments = ["--data-dir", tmp_path, "--scenes", "--max-images", 6, "--resolution", 32, "--masks", "--ratio", 0.5]
    assert prepare(capsys, *arguments)[0] == 0
    masks = Dataset(str(tmp_path / "scenes")).read_masks(range(6))
    expected = np.stack([scenes.draw_scene(0, index, 32).mask for index in range(6)])
    assert expected[:, :8].any() or expected[:, 24:].any()
    expected[:, :8] = expected[:, 24:] = 0
    np.testing.assert_array_equal(masks, expected)


def test_scenes_through_the_command_line(tmp_path, capsys):
    code, out, _ = prepare(capsys, "--data-dir", tmp_path, "--scenes", "--max-images", 7, "--resolution", 32, "--seed", 5, "--masks")
    assert code == 0 and "labels: [7, 3] counts (spheres, cubes, cylinders)" in out
    dataset = Dataset(str(tmp_path / "scenes"))
    expected = [scenes.draw_scene(5, index, 32) for index in range(7)]
    np.testing.assert_array_equal(dataset.read(range(7)), np.stack([scene.image.transpose(2, 0, 1) for scene in expected]))
    np.testing.assert_array_equal(dataset.read_masks(range(7)), np.stack([scene.mask for scene in expected]))
    np.testing.assert_array_equal(dataset.labels, np.stack([scene.counts for scene in expected]))
    assert dataset.label_names == ["spheres", "cubes", "cylinders"]
