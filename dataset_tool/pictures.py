"""A single image: from what was read to the square that is stored."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.manifest import picture_box
from training.picture_files import PictureError, cut, to_channels

ENCODINGS = ("png", "raw", "jpeg")
RESIZE_FILTER = "lanczos"
JPEG_QUALITY = 95


@dataclass(frozen=True)
class ImageFormat:
    """How images are stored: width of the square in pixels, channels, height / width, encoding (one of ENCODINGS)."""

    resolution: int
    channels: int = 3
    ratio: float = 1.0
    encoding: str = "png"


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
    """Rotate, convert, crop, resize and pad an image.

    Args:
        image: PIL image of any mode.
        form: the ImageFormat it is to have.

    Returns:
        (uint8 [H, W, C], list of what was done to it).

    Raises:
        PictureError: the type of the pixels is not supported.
    """
    image, notes = to_channels(image, form.channels)
    return np.atleast_3d(_fit(image, form, Image.Resampling.LANCZOS, notes)), notes               # [H, W, C]


def to_mask(mask, form):
    """Crop, resize and pad the mask of an image, uint8 [H, W] of object numbers, as `to_pixels` does with the image."""
    return _fit(Image.fromarray(mask), form, Image.Resampling.NEAREST, [])


def _fit(image, form, resample, notes):
    """Crop, resize and pad an image: uint8 [resolution, resolution] or [resolution, resolution, C]."""
    left, top, right, bottom = picture_box(form.resolution, form.ratio)
    whole, image = image, cut(image, form.ratio)
    if image is not whole:
        notes.append("cropped")
    if image.width < right - left:
        notes.append("enlarged")
    if image.size != (right - left, bottom - top):
        image = image.resize((right - left, bottom - top), resample)
    fitted = np.asarray(image)
    pixels = np.zeros([form.resolution, form.resolution, *fitted.shape[2:]], np.uint8)
    pixels[top:bottom, left:right] = fitted
    return pixels


def encode(pixels, encoding):
    """Encode uint8 [H, W, C] pixels as bytes; raw ones in the order C, H, W."""
    if encoding == "raw":
        return pixels.transpose(2, 0, 1).tobytes()
    output = io.BytesIO()
    image = from_array(pixels)
    if encoding == "jpeg":
        image.save(output, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(output, "PNG")
    return output.getvalue()
