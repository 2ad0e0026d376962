"""Conversion to bytes, grids, padding; sample grids and summaries; the schedule's arithmetic."""

import glob
import io
import os
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import tensorflow.compat.v1 as tf

from dnnlib import UsageError
from dnnlib.tflib.autosummary import Autosummary
from tests.training_standins import ArrayDataset
from training import images, schedule
from training.samples import SampleGrid
from training.visualize import sampling


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
    """It holds rows 4 to 11 of a square: a box of rows 5 to 10 keeps those, a larger box keeps all."""
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


def test_grids_are_about_1024_pixels_wide():
    assert [images.grid_shape(pixels) for pixels in (8, 128, 200, 256, 1024)] == [(8, 5), (8, 5), (5, 3), (4, 3), (4, 3)]


def test_gray_pictures(tmp_path):
    gray = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    images.save_png(gray, str(tmp_path / "gray.png"))
    assert np.array_equal(np.asarray(PIL.Image.open(str(tmp_path / "gray.png"))), gray[0])


def cells_of(grid):
    """Pictures of 8 x 8 of a grid [C, H, W], row by row: [N, C, 8, 8]."""
    channels, height, width = grid.shape
    return grid.reshape(channels, height // 8, 8, width // 8, 8).transpose(1, 3, 0, 2, 4).reshape(-1, channels, 8, 8)


class Painter:
    """A generator of pictures in the shade of their class; in the last layer's first head, each class attends to a different latent."""

    def __init__(self, has_attention):
        self.config = SimpleNamespace(has_attention=has_attention, maps_num=3 * 2 * 2, resolution=8)
        self.input_shapes = [(1, 8)]
        self.calls = []

    def run_part(self, part, *inputs, batch_size, return_maps=False, **options):
        assert batch_size == 4
        if part == "mapping":
            assert options == {"truncation_psi": 0.5}
            self.calls.append(inputs)
            return SimpleNamespace(ws=np.tile(inputs[1].argmax(axis=1)[:, None, None, None], [1, 1, 5, 8]))
        classes = inputs[0][:, 0, 0, 0]
        assert options.pop("noise_mode") == "const" and list(options) == ["seeds"] and return_maps == self.config.has_attention
        maps = np.full([len(classes), 3, 2, 2, 8, 8], 0.5)  # [n, k, layers, h, H, W]
        maps[:, :, -1, 0] = np.eye(3)[classes][:, :, None, None]
        return SimpleNamespace(images=(classes - 1.0)[:, None, None, None] * np.ones([1, 3, 8, 8]), maps=maps)


@pytest.mark.parametrize("keep", [True, False])
def test_sample_grids(tmp_path, keep):
    """The same latents every time, with the labels of the real pictures; older grids are removed if only the newest is to be kept."""
    dataset, painter = ArrayDataset(classes=3), Painter(has_attention=False)
    samples = SampleGrid(str(tmp_path), dataset, painter, 0, 0.5, keep)
    samples.write_reals()
    grids = [samples.write(painter, shown, batch_size=4) for shown in (1999, 5000)]
    (z, labels), again = painter.calls
    assert np.array_equal(z, again[0]) and np.array_equal(labels, again[1]) and z.shape == (40, 1, 8) and abs(z.std() - 1) < 0.2
    assert [set(grid) for grid in grids] == [{"images"}] * 2 and os.listdir(str(tmp_path / "visuals")) == ["images"]
    assert np.array_equal(cells_of(grids[1]["images"])[:, 0, 0, 0], np.array([0, 128, 255])[labels.argmax(axis=1)])
    reals = cells_of(np.asarray(PIL.Image.open(str(tmp_path / "reals.png"))).transpose(2, 0, 1))
    pictures = {picture.tobytes(): label for picture, label in zip(dataset.read(np.arange(64)), dataset.labels)}
    assert all(np.array_equal(pictures[real.tobytes()], label) for real, label in zip(reals, labels))
    assert sorted(os.listdir(str(tmp_path / "visuals" / "images"))) == ["000001_grid.png", "000005_grid.png"][not keep :]
    (tmp_path / "reals.png").write_text("of the run's start")
    samples.write_reals()
    assert (tmp_path / "reals.png").read_text() == "of the run's start"


def test_sample_grids_of_other_runs(tmp_path):
    """Without the dataset's padding; another seed has other latents."""
    dataset, painter = ArrayDataset(classes=3), Painter(has_attention=False)
    dataset.ratio = 0.5
    for seed in (0, 1):
        samples = SampleGrid(str(tmp_path), dataset, painter, seed, 0.5, keep=False)
        samples.write_reals()
        assert samples.write(painter, 0, batch_size=4)["images"].shape == (3, 5 * 4, 8 * 8)
    assert PIL.Image.open(str(tmp_path / "reals.png")).size == (8 * 8, 5 * 4)
    assert not np.array_equal(painter.calls[0][0], painter.calls[1][0])


@pytest.mark.parametrize("memory, size", [(2**28, 4), (1, 1)])
def test_grids_of_attention(tmp_path, monkeypatch, memory, size):
    """Beside the samples, cell by cell in the same order, however many maps fit into memory."""
    monkeypatch.setattr(sampling, "MAPS_MEMORY", memory)
    painter, sizes = Painter(has_attention=True), []
    run_part = painter.run_part
    painter.run_part = lambda part, *inputs, **options: sizes.append((part, len(inputs[0]))) or run_part(part, *inputs, **options)
    samples = SampleGrid(str(tmp_path), ArrayDataset(classes=3), painter, 0, 0.5, keep=False)
    for shown in (1999, 5000):
        grids = samples.write(painter, shown, batch_size=4)
    assert sizes[:2] == [("mapping", 40), ("synthesis", size)]
    classes = painter.calls[0][1].argmax(axis=1)
    assert len(set(classes)) == 3
    hues = np.array([[242, 13, 13], [13, 242, 13], [13, 13, 242]])
    for kind, expected in (("images", np.array([[0] * 3, [128] * 3, [255] * 3])), ("maps", hues)):
        assert np.array_equal(cells_of(grids[kind]), np.tile(expected[classes][:, :, None, None], [1, 1, 8, 8]))
        (name,) = os.listdir(str(tmp_path / "visuals" / kind))
        written = np.asarray(PIL.Image.open(str(tmp_path / "visuals" / kind / name)))
        assert name == "000005_grid.png" and np.array_equal(written.transpose(2, 0, 1), grids[kind])


def test_summaries(tmp_path):
    """Means since the last report; unchanged pictures."""
    pictures = {"color": np.arange(24, dtype=np.uint8).reshape(3, 2, 4), "gray": np.arange(8, dtype=np.uint8).reshape(1, 2, 4)}
    summary = Autosummary(str(tmp_path), begun=16)
    summary.add({"a": 1.0, "b": 2.0})
    summary.add({"a": 4.0})
    assert summary.report(32, {"c": 7.0}) == {"a": 2.5, "b": 2.0, "c": 7.0}
    summary.add({"a": 1.0})
    assert summary.report(48) == {"a": 1.0}
    for name, picture in pictures.items():
        summary.image(name, picture, 48)
    summary.close()
    events = list(tf.train.summary_iterator(glob.glob(str(tmp_path / "events*"))[0]))
    assert [event.step for event in events if event.HasField("session_log")] == [17]
    values = [(event.step, value) for event in events for value in event.summary.value]
    numbers = [(step, value.tag, value.simple_value) for step, value in values if value.HasField("simple_value")]
    assert sorted(numbers) == [(32, "a", 2.5), (32, "b", 2.0), (32, "c", 7.0), (48, "a", 1.0)]
    for step, value in values:
        if value.HasField("image"):
            shown = np.asarray(PIL.Image.open(io.BytesIO(value.image.encoded_image_string))).reshape(2, 4, -1)
            assert step == 48 and np.array_equal(shown.transpose(2, 0, 1), pictures.pop(value.tag))
            assert (value.image.height, value.image.width, value.image.colorspace) == shown.shape
    assert not pictures


def test_schedule():
    assert schedule.rounds_per_step(32, 4, 2) == 4
    with pytest.raises(UsageError, match="--batch-size 32"):
        schedule.rounds_per_step(32, 3, 2)
    assert schedule.steps_of(1, 32) == 32 and schedule.steps_of(0.032, 32) == 1 and schedule.steps_of(0, 32) == 0
    assert schedule.moving_average_beta(32, 10) ** (10000 / 32) == pytest.approx(0.5)
    assert [schedule.automatic_tick_kimg(kimg, 32) for kimg in (25000, 9, 0.1)] == [8, 1, 0.256]
    assert [schedule.tick_of(n, 0.1) for n in (0, 99, 100, 300)] == [0, 0, 1, 3]
    assert schedule.tick_of(11000, schedule.automatic_tick_kimg(11, 32)) == 9
