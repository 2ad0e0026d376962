"""Pictures of every mode and kind: conversion, crop, resize, padding, what is reported, what is refused; --check."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from dataset_tool import pictures
from tests.dataset_helpers import error_line, image_bytes, noise, png_of_size, prepare, prepare_process, smooth_picture, write_pngs
from training.dataset import Dataset
from training.picture_files import PictureError, open_picture


def _stored(image, resolution=8, channels=3, ratio=1.0):
    return pictures.to_pixels(image, pictures.ImageFormat(resolution, channels, ratio))


def test_a_picture_of_the_right_form_is_left_alone():
    pixels = noise(1, 8)[0]
    stored, notes = _stored(Image.fromarray(pixels))
    np.testing.assert_array_equal(stored, pixels)
    assert notes == []


def test_modes_against_their_arithmetic():
    gray = noise(1, 8)[0, :, :, 0]
    alpha = noise(1, 8, seed=1)[0, :, :, 0]
    colour = noise(1, 8, seed=2)[0]
    wide = np.random.RandomState(3).randint(65536, size=[8, 8]).astype(np.uint16)
    over_black = np.round(colour * (alpha[..., None] / 255.0))
    repeated = np.repeat(gray[..., None], 3, axis=2)
    for image, expected, note in (
        (Image.fromarray(gray), repeated, "gray to RGB"),
        (Image.fromarray(gray > 99), np.repeat((gray > 99)[..., None], 3, axis=2) * 255, "black and white to RGB"),
        (Image.fromarray(np.dstack([colour, alpha])), over_black, "RGBA to RGB"),
        (Image.fromarray(np.dstack([gray, alpha])), np.round(repeated * (alpha[..., None] / 255.0)), "gray with alpha to RGB"),
        (Image.fromarray(wide), np.repeat(np.round(wide / 257.0)[..., None], 3, axis=2), "16-bit gray to RGB"),
        (Image.fromarray(wide.astype(np.int32)), np.repeat(np.round(wide / 257.0)[..., None], 3, axis=2), "16-bit gray to RGB"),
        (Image.fromarray(colour).quantize(256), np.asarray(Image.fromarray(colour).quantize(256).convert("RGB")), "palette to RGB"),
        (Image.fromarray(255 - colour).convert("CMYK"), 255 - colour, "CMYK to RGB"),
    ):
        stored, notes = _stored(image)
        assert np.abs(stored.astype(int) - expected).max() <= 1, note
        assert notes == [note]
    assert _stored(Image.fromarray(gray), channels=1)[1] == [] and _stored(Image.fromarray(colour), channels=1)[0].shape == (8, 8, 1)
    np.testing.assert_array_equal(_stored(Image.fromarray(np.dstack([colour, alpha])), channels=4)[0], np.dstack([colour, alpha]))


@pytest.mark.parametrize("format", ["EPS", "PCX"])
def test_formats_that_nobody_needs_are_not_tried(format):
    """For an EPS file, Pillow would start Ghostscript, a program that a picture can give commands to."""
    with pytest.raises(PictureError, match="^not an image$"):
        open_picture(io.BytesIO(image_bytes(noise(1, 8)[0], format)))


def test_panoramas_are_not_too_large():
    with pytest.raises(PictureError, match="truncated"):  # beyond Pillow's own limit it begins to read the pixels, of which there is one
        open_picture(io.BytesIO(png_of_size(13400, 13400)))
    with pytest.raises(PictureError, match="^more than 1,073,741,824 pixels$"):
        open_picture(io.BytesIO(png_of_size(1 << 15, (1 << 15) + 1)))


def test_16_bits_are_rounded():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(every / 257.0)
    np.testing.assert_array_equal(_stored(Image.fromarray(every), resolution=256, channels=1)[0][..., 0], expected)
    np.testing.assert_array_equal(pictures.from_array(every), expected)


def test_gray_multiplied_with_alpha_is_taken():
    """As in some TIFF files."""
    gray, alpha = noise(1, 8)[0, :, :, 0], noise(1, 8, seed=1)[0, :, :, 0]
    image = Image.fromarray(np.dstack([gray, alpha])).convert("La")
    assert image.mode == "La"
    assert np.abs(_stored(image, channels=1)[0][..., 0] - np.round(gray * (alpha / 255.0))).max() <= 1


def test_jpeg_keeps_the_colours_resolution_and_the_quality():
    pixels = smooth_picture(16, 16)
    with Image.open(io.BytesIO(pictures.encode(pixels, "jpeg"))) as image:
        with Image.open(io.BytesIO(image_bytes(pixels, "JPEG", quality=95))) as expected:
            assert image.quantization == expected.quantization
        assert JpegImagePlugin.get_sampling(image) == 0     # 4:4:4


def test_a_transparent_palette_is_put_over_black(tmp_path):
    image = Image.fromarray(noise(1, 8)[0]).quantize(16)
    image.info["transparency"] = 3
    image.save(str(tmp_path / "a.png"), transparency=3)
    stored, _ = _stored(open_picture(str(tmp_path / "a.png")))
    numbers = np.asarray(image)
    assert (numbers == 3).any() and not stored[numbers == 3].any()
    np.testing.assert_array_equal(stored[numbers != 3], np.asarray(image.convert("RGB"))[numbers != 3])


def test_exif_rotation_is_applied_and_reported(tmp_path):
    pixels = smooth_picture(8, 8)
    swapped = pixels.transpose(1, 0, 2)
    for orientation, turned in enumerate((pixels, pixels, pixels[:, ::-1], pixels[::-1, ::-1], pixels[::-1], swapped, np.rot90(pixels, -1),
                                          swapped[::-1, ::-1], np.rot90(pixels))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = str(tmp_path / f"{orientation}.png")
        Image.fromarray(pixels).save(path, exif=exif)
        stored, notes = _stored(open_picture(path))
        np.testing.assert_array_equal(stored, turned)
        assert notes == (["turned as EXIF says"] if orientation > 1 else [])


def test_a_mask_is_cropped_resized_and_padded_like_its_picture():
    mask = np.repeat(np.arange(8, dtype=np.uint8)[:, None], 8, axis=1)
    fitted = pictures.to_mask(mask, pictures.ImageFormat(16, ratio=0.5))
    assert fitted.dtype == np.uint8 and not fitted[:4].any() and not fitted[12:].any()
    np.testing.assert_array_equal(fitted[4:12], np.repeat(np.repeat([2, 3, 4, 5], 2)[:, None], 16, axis=1))
    assert set(pictures.to_mask(mask * 20, pictures.ImageFormat(4)).flat) <= set(range(0, 160, 20))  # no values in between objects


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken_and_it_is_said(tmp_path, format):
    frames = [Image.fromarray(np.full([8, 8, 3], value, np.uint8)) for value in (0, 255)]
    path = str(tmp_path / "a.png")
    frames[0].save(path, format, save_all=True, append_images=frames[1:])
    stored, notes = _stored(open_picture(path))
    assert not stored.any() and "only the first of several frames" in notes
    frames[0].save(path, format)
    assert "only the first of several frames" not in _stored(open_picture(path))[1]


def test_a_tiff_of_32_bit_numbers_is_named_so(tmp_path):
    for kind, note in ((np.int32, "32-bit gray to RGB"), (np.uint16, "16-bit gray to RGB")):
        Image.fromarray(np.full([8, 8], 300, kind)).save(str(tmp_path / "a.tif"))
        assert _stored(open_picture(str(tmp_path / "a.tif")))[1] == [note]


def test_a_single_file_has_its_name_in_messages(tmp_path, capsys):
    (tmp_path / "one.png").write_bytes(b"")
    code, _, err = prepare(capsys, "--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "one.png")
    assert code == 1 and "first one.png (not an image)" in error_line(err)
    code, out, _ = prepare(capsys, "--check", tmp_path / "one.png")
    assert code == 1 and "rejected: one.png: not an image" in out


def test_damaged_exif_says_nothing(tmp_path):
    pixels = smooth_picture(8, 8)
    Image.fromarray(pixels).save(str(tmp_path / "a.png"), exif=b"no TIFF structure")
    stored, notes = _stored(open_picture(str(tmp_path / "a.png")))
    np.testing.assert_array_equal(stored, pixels)
    assert not notes


def test_a_picture_is_turned_past_metadata_that_make_no_sense(tmp_path):
    """The picture's width is stored as text: it can be read, but not written back."""
    entries = struct.pack("<HHI4s", 0x0100, 2, 4, b"abc") + struct.pack("<HHII", 0x0112, 3, 1, 3)
    pixels = smooth_picture(8, 8)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    Image.fromarray(pixels).save(str(tmp_path / "a.png"), exif=exif)
    stored, notes = _stored(open_picture(str(tmp_path / "a.png")))
    np.testing.assert_array_equal(stored, pixels[::-1, ::-1])
    assert notes == ["turned as EXIF says"]


def test_lab_pictures_become_gray():
    lab = Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (255, 128, 128)])     # white
    for channels in (1, 3, 4):
        assert _stored(lab, channels=channels)[0].min() >= 254


def test_floating_point_and_32_bit_pixels_are_refused():
    integers = [Image.fromarray(np.full([8, 8], value, np.int32)) for value in (65536, -1)]
    for image in (Image.fromarray(np.zeros([8, 8], np.float32)), *integers):
        with pytest.raises(PictureError, match="accepted: 1, 8 or 16 bits"):
            _stored(image)


@pytest.mark.parametrize(
    "height, width, ratio",
    [(8, 20, 1.0), (20, 8, 1.0), (16, 16, 0.5), (8, 16, 0.5), (30, 50, 0.75), (188, 256, 188 / 256), (17, 12, 0.7), (10, 27, 1.0)],
)
def test_crop_resize_and_padding(height, width, ratio):
    """Against a crop with exact fractions and Pillow's own resize; the padding is black."""
    source = np.maximum(smooth_picture(height, width), 1)
    stored, notes = _stored(Image.fromarray(source), 16, ratio=ratio)
    kept_height, kept_width = (height, round(height / ratio)) if width * ratio > height else (round(width * ratio), width)
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    cropped = source[top:top + kept_height, left:left + kept_width]
    rows = round(16 * ratio)
    first = (16 - rows) // 2
    expected = np.asarray(Image.fromarray(cropped).resize((16, rows), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(stored[first:first + rows], expected)
    assert not stored[:first].any() and not stored[first + rows:].any()
    assert ("cropped" in notes) == (cropped.shape != source.shape)


def test_of_the_widest_ratio_there_is_one_row():
    stored, _ = _stored(Image.fromarray(np.maximum(noise(1, 30)[0], 1)), 16, ratio=0.01)
    np.testing.assert_array_equal(stored.any(axis=(1, 2)), np.arange(16) == 7)


def test_conversions_are_counted_and_bad_files_are_listed(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(200, 8))
    write_pngs(tmp_path / "in", noise(2, 8)[..., 0], ["gray1.png", "gray2.png"])
    write_pngs(tmp_path / "in", [noise(1, 9)[0], noise(1, 4)[0]], ["larger.png", "smaller.png"])
    (tmp_path / "in" / "0100.png").write_bytes(image_bytes(noise(1, 64)[0], "PNG")[:2000])
    (tmp_path / "in" / "0150.png").write_bytes(b"<html>")
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8]
    code, out, err = prepare(capsys, *arguments)
    assert code == 0, err
    for line in ("gray to RGB: 2 images", "enlarged: 1 images", "skipped: 2 unusable images, listed in"):
        assert line in out
    lines = (tmp_path / "own" / "skipped.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["0100.png", "0150.png"] and lines[1].endswith("not an image")
    dataset = Dataset(str(tmp_path / "own"))
    assert dataset.count == 202
    np.testing.assert_array_equal(dataset.read([99, 100, 149]), noise(200, 8)[[99, 101, 151]].transpose(0, 3, 1, 2))


def test_more_than_one_percent_of_bad_files_stops_unless_allowed(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(20, 8))
    (tmp_path / "in" / "0007.png").write_bytes(b"")
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8, "--labels", "none"]
    code, _, err = prepare(capsys, *arguments)
    assert code == 1 and "1 of 20 images are unusable, first 0007.png (not an image)" in error_line(err)
    assert not (tmp_path / "own").exists()
    code, _, err = prepare(capsys, *arguments)  # its shards are complete, but still not allowed
    assert code == 1 and "1 of 20 images are unusable" in error_line(err)
    code, out, _ = prepare(capsys, *arguments, "--allow-skips")
    assert code == 0 and Dataset(str(tmp_path / "own")).count == 19
    for number in range(20):
        (tmp_path / "in" / f"{number:04d}.png").write_bytes(b"")
    code, _, err = prepare(capsys, *arguments[:3], "none", *arguments[4:], "--allow-skips")
    assert code == 1 and "none of 20 images can be used" in error_line(err)


def test_every_unusable_picture_is_listed_before_the_error(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(20, 8))
    for name in ("0002.png", "0017.png"):
        (tmp_path / "in" / name).write_bytes(b"")
    arguments = ["--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8, "--shards-num", 4]
    code, _, err = prepare(capsys, *arguments)
    assert code == 1 and "2 of 20 images are unusable, first 0002.png" in error_line(err)
    lines = (tmp_path / "own.partial" / "skipped.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["0002.png", "0017.png"]
    assert not list(tmp_path.glob(".*"))
    code, out, _ = prepare(capsys, *arguments, "--allow-skips")
    assert code == 0 and "4 of 4 shards are finished" in out and Dataset(str(tmp_path / "own")).count == 18


def test_check_reports_and_writes_nothing(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(3, 8))
    write_pngs(tmp_path / "in", noise(2, 12)[..., 0], ["g1.png", "g2.png"])
    (tmp_path / "in" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    (tmp_path / "in" / "notes.txt").write_text("")
    done = prepare_process("--check", tmp_path / "in")
    assert done.returncode == 1 and done.stderr == ""
    for line in ("6 image files, 1 would be rejected", "size 8 x 8: 3", "size 12 x 12: 2", "mode RGB: 3", "mode L: 2", "gray to RGB: 2",
                 "rejected: bad.jpg: ", "left out 1 other files"):
        assert line in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    for resolution, enlarged in ((256, 5), (16, 5), (8, 0)):
        code, out, _ = prepare(capsys, "--check", tmp_path / "in", "--resolution", resolution)
        assert code == 1 and ("preparation enlarged: 5" in out) == (enlarged == 5)
    _, out, _ = prepare(capsys, "--check", tmp_path / "in", "--ratio", 0.5, "--channels", 1)
    assert "preparation cropped: 5" in out and "gray to RGB" not in out
    assert "--check" in error_line(prepare_process("--check", tmp_path / "nowhere").stderr)


def test_check_sums_up_what_would_be_too_many_lines(tmp_path, capsys):
    write_pngs(tmp_path, [noise(1, size)[0] for size in range(4, 27)])
    write_pngs(tmp_path, noise(2, 30), ["a.png", "b.png"])
    code, out, _ = prepare(capsys, "--check", tmp_path)
    lines = [line for line in out.splitlines() if line.startswith("  size")]
    assert code == 0 and len(lines) == 21 and lines[0] == "  size 30 x 30: 2" and lines[-1] == "  size: 4 others, 4 files"


def test_check_of_a_dataset_compares_every_checksum(tmp_path, capsys):
    write_pngs(tmp_path / "in", noise(6, 8))
    assert prepare(capsys, "--data-dir", tmp_path, "--task", "own", "--images-dir", tmp_path / "in", "--resolution", 8)[0] == 0
    code, out, _ = prepare(capsys, "--check", tmp_path / "own")
    assert code == 0 and "6 records of [3, 8, 8]" in out and "0 damaged" in out
    with open(str(tmp_path / "own" / "own-r03.tfrecords1of1"), "r+b") as file:
        file.seek(40)
        file.write(b"\0\1\2")
    code, out, _ = prepare(capsys, "--check", tmp_path / "own")
    assert code == 1 and "damaged: " in out and "corrupt record at offset 0" in out
