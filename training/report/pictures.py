"""Images of a run folder as small data URLs."""

from __future__ import annotations

import base64
import io
import json
import sys

import numpy as np
import PIL.Image

from training.picture_files import PictureError, open_picture

MAPS_WIDTH = 256


def photograph(path, width):
    """An image file as a JPEG data URL, at most `width` pixels wide; None if it cannot be read."""
    picture = _opened(path, width, PIL.Image.Resampling.LANCZOS)
    return picture and _url(picture, "JPEG", quality=88, subsampling=0)


def drawing(path, width=MAPS_WIDTH):
    """An image file of few colours as a PNG data URL with exactly these colours, at most `width` pixels wide; None if unreadable."""
    picture = _opened(path, width, PIL.Image.Resampling.NEAREST)
    if picture is None:
        return None
    few = picture.getcolors(256) is not None
    return _url(_with_palette(picture) if few else picture, "PNG", optimize=True)


def _opened(path, width, resample):
    """An image file in RGB, at most `width` pixels wide; None, with a warning, if it cannot be read."""
    try:
        return _narrowed(open_picture(path).convert("RGB"), width, resample)
    except PictureError as error:
        print(f"warning: the report leaves out {path}: {error}", file=sys.stderr)
        return None


def _with_palette(picture):
    """The same picture of at most 256 colours with a palette of exactly these colours."""
    codes = np.asarray(picture.convert("RGBX")).view("<u4")  # [H, W, 1], a number for each colour
    colours, indices = np.unique(codes, return_inverse=True)
    indexed = PIL.Image.frombytes("P", picture.size, indices.astype(np.uint8).tobytes())
    indexed.putpalette(colours.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    return indexed


def _narrowed(picture, width, resample):
    if picture.width <= width:
        return picture
    return picture.resize((width, max(round(picture.height * width / picture.width), 1)), resample)


def _url(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def evenly(items, count):
    """At most `count` of the items, evenly spaced, including the first and the last."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]


def within(items, encode, most, limit):
    """Encode evenly spaced items so that the result stays below `limit` characters.

    Args:
        items: list.
        encode: function item -> what the page shows of it, a data URL or a JSON-ready dict; None to leave the item out.
        most: largest number of items; it is halved until the items fit.
        limit: number of characters of the JSON.

    Returns:
        list of (item, what `encode` made of it).
    """
    positions, fitting, made = [evenly(range(len(items)), most)], [], {}
    while len(positions[-1]) > 1:
        positions.append(evenly(positions[-1], len(positions[-1]) // 2))
    for chosen in reversed(positions):  # from few to many, so that most of what does not fit is never encoded
        made.update({number: encode(items[number]) for number in chosen if number not in made})
        there = [(items[number], made[number]) for number in chosen if made[number]]
        if len(there) > 1 and sum(len(json.dumps(one)) for _, one in there) > limit:
            return fitting or there[-1:]
        fitting = there
    return fitting
