"""One picture: from whatever was read to the square that is stored."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.images import MODES
from training.manifest import picture_box

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")     # what Pillow may be asked to decode: none of these starts a program
ENCODINGS = ("png", "raw", "jpeg")
RESIZE_FILTER = "lanczos"
JPEG_QUALITY = 95
_ORIENTATION = 0x0112     # the EXIF field, and what undoes its values; 1 is not turned at all
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}
_SEVERAL_FRAMES = "several frames"     # our entry in a picture's `info`


class PictureError(Exception):
    """This one picture cannot be used; the reason."""


@dataclass(frozen=True)
class Form:
    """How pictures are stored: width of the square in pixels, channels, height / width, encoding (one of ENCODINGS)."""

    resolution: int
    channels: int = 3
    ratio: float = 1.0
    encoding: str = "png"


def open_picture(file):
    """Decode an image file (a path or a binary file object). Returns a PIL image; raises PictureError."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            several = getattr(image, "is_animated", False)     # asks the file, which is closed afterwards
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
    return " ".join(str(error).split()) or type(error).__name__


def from_array(pixels):
    """A PIL image of an array, uint8 or uint16, [H, W] or [H, W, C] with C of 1 to 4."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise PictureError(f"pixels of type {pixels.dtype}; accepted: uint8, uint16")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] > 4):
        raise PictureError(f"shape {list(pixels.shape)}; accepted: [H, W], [H, W, 1 to 4]")
    return Image.fromarray(np.ascontiguousarray(pixels))


def to_pixels(image, form):
    """Turn, convert, crop, resize and pad a picture.

    Args:
        image: PIL image of any mode.
        form: the Form it is to have.

    Returns:
        (uint8 [H, W, C], list of what was done to it).

    Raises:
        PictureError: pixels of a kind that has no meaning here.
    """
    notes = []
    if image.info.get(_SEVERAL_FRAMES):
        notes.append("only the first of several frames")
    turn = _turn(image)
    if turn is not None:
        image = image.transpose(turn)     # ImageOps.exif_transpose writes the metadata anew, which fails for odd ones
        notes.append("turned as EXIF says")
    image = _convert(image, MODES[form.channels], notes)
    return np.atleast_3d(_fit(image, form, Image.Resampling.LANCZOS, notes)), notes               # [H, W, C]


def to_mask(mask, form):
    """Crop, resize and pad the mask of a picture, uint8 [H, W] of object numbers, as `to_pixels` does with the picture."""
    return _fit(Image.fromarray(mask), form, Image.Resampling.NEAREST, [])


def _fit(image, form, resample, notes):
    """Crop, resize and pad an image: uint8 [resolution, resolution] or [resolution, resolution, C]."""
    left, top, right, bottom = picture_box(form.resolution, form.ratio)
    image = _crop(image, form.ratio, notes)
    if image.width < right - left:
        notes.append("enlarged")
    if image.size != (right - left, bottom - top):
        image = image.resize((right - left, bottom - top), resample)
    fitted = np.asarray(image)
    pixels = np.zeros([form.resolution, form.resolution, *fitted.shape[2:]], np.uint8)
    pixels[top:bottom, left:right] = fitted
    return pixels


def _turn(image):
    """How EXIF says that the picture is to be turned, or None; metadata that cannot be read says nothing."""
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
    if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA" and mode != "RGBA":
        # The colour below transparent pixels is arbitrary: what is not there becomes black, like the padding.
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode == "LAB":     # Pillow converts it to RGB alone
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


def _crop(image, ratio, notes):
    """The largest centred rectangle of the ratio height / width."""
    width, height = image.size
    kept = (min(width, max(1, int(round(height / ratio)))), min(height, max(1, int(round(width * ratio)))))
    if kept == image.size:
        return image
    notes.append("cropped")
    left, top = (width - kept[0]) // 2, (height - kept[1]) // 2
    return image.crop((left, top, left + kept[0], top + kept[1]))


def encode(pixels, encoding):
    """Bytes of uint8 [H, W, C] pixels: raw ones in the order C, H, W."""
    if encoding == "raw":
        return pixels.transpose(2, 0, 1).tobytes()
    output = io.BytesIO()
    image = from_array(pixels)
    if encoding == "jpeg":
        image.save(output, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(output, "PNG")
    return output.getvalue()
