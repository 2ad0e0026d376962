"""Reading of users' image files: decoding, rotation and conversion, the same wherever they are read."""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image

from training.images import MODES

# What Pillow is allowed to decode (none of these starts a program), and how the names of such files end.
EXTENSIONS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",), "BMP": (".bmp",), "GIF": (".gif",),
              "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm")}
MAX_PIXELS = 1 << 30     # panoramas, and grids of our own at 2048 pixels, have more than the 179 million that Pillow allows
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2     # its error begins at twice this number, its warning at this
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
_ORIENTATION = 0x0112     # the EXIF field, and what undoes each of its values; 1 means not rotated
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}
_SEVERAL_FRAMES = "several frames"     # our entry in an image's `info`


class PictureError(Exception):
    """This image cannot be used; the message is the reason."""


def open_picture(file):
    """Decode an image file (a path or a binary file object). Returns a PIL image; raises PictureError."""
    try:
        with Image.open(file, formats=tuple(EXTENSIONS)) as image:
            several = getattr(image, "is_animated", False)     # reads the file, which is closed afterwards
            image.load()
            image.info[_SEVERAL_FRAMES] = several
            return image
    except Exception as error:     # damaged files make Pillow's plugins raise nearly anything
        raise PictureError(_reason(error)) from error


def _reason(error):
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, FileNotFoundError):
        return "not found"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    return " ".join(str(error).split()) or type(error).__name__


def to_channels(image, channels):
    """Rotate an image as EXIF says and convert it.

    Args:
        image: PIL image of any mode.
        channels: 1 gray, 3 RGB, 4 RGB with alpha.

    Returns:
        (PIL image with this number of channels, list of what was done to it).

    Raises:
        PictureError: its kind of pixels is not supported.
    """
    notes = []
    if image.info.get(_SEVERAL_FRAMES):
        notes.append("only the first of several frames")
    turn = _turn(image)
    if turn is not None:
        image = image.transpose(turn)     # ImageOps.exif_transpose rewrites the metadata, which fails if it is odd
        notes.append("turned as EXIF says")
    return _convert(image, MODES[channels], notes), notes


def cut(image, ratio):
    """Crop a PIL image to its largest centred rectangle of height / width `ratio`; returns the image itself if that is all of it."""
    width, height = min(image.width, max(1, round(image.height / ratio))), min(image.height, max(1, round(image.width * ratio)))
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _turn(image):
    """The transposition that EXIF asks for, or None; unreadable metadata is ignored."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION))
    except Exception:  # Pillow raises SyntaxError, struct.error and others
        return None


def _convert(image, mode, notes):
    if image.mode == mode and "transparency" not in image.info:
        return image
    notes.append(f"{_mode_name(image)} to {mode}")
    if image.mode == "F":
        raise PictureError("floating-point pixels; accepted: 1, 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if image.mode == "La":     # gray premultiplied with alpha: Pillow converts it only to LA
        image = image.convert("LA")
    if image.mode in ("P", "PA", "LA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA" and mode != "RGBA":
        # The colour of transparent pixels is arbitrary: they become black, like the padding.
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode == "LAB":     # Pillow converts it only to RGB
        image = image.convert("RGB")
    return image.convert(mode)


def _mode_name(image):
    if image.mode.startswith("I"):     # a 16-bit PNG can be of mode I too
        return "32-bit gray" if image.mode == "I" and image.format == "TIFF" else "16-bit gray"
    names = {"L": "gray", "LA": "gray with alpha", "P": "palette", "1": "black and white"}
    return names.get(image.mode, image.mode)


def _from_16_bits(image):
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise PictureError("32-bit pixels; accepted: 1, 8 or 16 bits a channel")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
