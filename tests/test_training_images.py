"""Conversion to bytes, grids, padding; the schedule's arithmetic."""

import numpy as np
import PIL.Image
import pytest

from dnnlib import UsageError
from training import images, schedule


def test_to_uint8():
    x = np.array([-2.0, -1.0, -1 / 255, 0.0, 0.5, 0.999, 1.0, 3.0])
    expected = [min(max(int(np.floor(value * 127.5 + 128)), 0), 255) for value in x]
    result = images.to_uint8(x)
    assert result.dtype == np.uint8
    assert result.tolist() == expected
    assert result[0] == result[1] == 0 and result[3] == 128 and result[-1] == 255


def test_every_byte_survives_the_round_trip():
    values = np.arange(256)
    assert np.array_equal(images.to_uint8(values / 127.5 - 1), values)


@pytest.mark.parametrize("ratio, rows", [(1.0, (0, 16)), (0.75, (2, 14)), (0.5, (4, 12)), (0.7, (2, 13)), (0.01, (7, 8))])
def test_crop_padding(ratio, rows):
    picture = np.arange(16)[:, np.newaxis] * np.ones([2, 3, 16, 16], int)
    assert np.array_equal(images.crop_padding(picture, ratio)[1, 2, :, 0], np.arange(*rows))


def test_crop_of_an_image_computed_without_padding():
    """Rows 4 to 11 of a square are there: of its box 5 to 10, those; of a larger box, all."""
    half = np.arange(4, 12)[:, np.newaxis] * np.ones([1, 3, 8, 16], int)
    for ratio, rows in ((0.4, (5, 11)), (0.5, (4, 12)), (0.75, (4, 12))):
        assert np.array_equal(images.crop_padding(half, ratio)[0, 0, :, 0], np.arange(*rows))


def test_grid(tmp_path):
    cells = np.arange(5, dtype=np.uint8)[:, np.newaxis, np.newaxis, np.newaxis] * np.ones([1, 3, 2, 4], np.uint8) + 10
    grid = images.make_grid(cells, columns=3)
    assert grid.shape == (3, 4, 12)
    assert grid[0, ::2, ::4].tolist() == [[10, 11, 12], [13, 14, 0]]
    images.save_png(grid, str(tmp_path / "sub" / "grid.png"))
    assert np.array_equal(np.asarray(PIL.Image.open(str(tmp_path / "sub" / "grid.png"))).transpose(2, 0, 1), grid)


def test_gray_pictures(tmp_path):
    gray = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    images.save_png(gray, str(tmp_path / "gray.png"))
    assert np.array_equal(np.asarray(PIL.Image.open(str(tmp_path / "gray.png"))), gray[0])


def test_schedule():
    assert schedule.rounds_per_step(32, 4, 2) == 4
    with pytest.raises(UsageError, match="--batch-size 32"):
        schedule.rounds_per_step(32, 3, 2)
    assert schedule.steps_of(1, 32) == 32 and schedule.steps_of(0.032, 32) == 1 and schedule.steps_of(0, 32) == 0
    assert schedule.moving_average_beta(32, 10) ** (10000 / 32) == pytest.approx(0.5)
    assert [schedule.automatic_tick_kimg(kimg, 32) for kimg in (25000, 9, 0.1)] == [8, 1, 0.256]
    assert [schedule.tick_of(n, 0.1) for n in (0, 99, 100, 300)] == [0, 0, 1, 3]
