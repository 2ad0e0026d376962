"""Independent readers and writers of the dataset format (struct and loops only), pictures, and a way to run prepare_data.py."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image

from dataset_tool import cli
from dnnlib import run_main
from tests.conftest import ROOT

_CRC_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte >> 1) ^ (0x82F63B78 if _byte & 1 else 0)
    _CRC_TABLE.append(_byte)


def masked_crc(data):
    """Masked crc32c, bit by bit from its definition (Castagnoli polynomial, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def parse_tfrecords(path):
    """List of the records (bytes) of a TFRecord file; compares all checksums."""
    with open(path, "rb") as file:
        content = file.read()
    records, at = [], 0
    while at < len(content):
        length, length_crc = struct.unpack_from("<QI", content, at)
        data = content[at + 12:at + 12 + length]
        (data_crc,) = struct.unpack_from("<I", content, at + 12 + length)
        assert masked_crc(content[at:at + 8]) == length_crc and masked_crc(data) == data_crc
        records.append(data)
        at += 16 + length
    return records


def _varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def _fields(data):
    """(number, value) of the fields of a serialized message: bytes for length-delimited fields, integers for varints."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
        else:
            assert key & 7 == 2
            length, at = _varint(data, at)
            value, at = data[at:at + length], at + length
        yield key >> 3, value


def parse_example(data):
    """Dict name -> (kind, values) of a serialized tf.train.Example, in file order; kind is "bytes" or "int64"."""
    found = {}
    for _, features in _fields(data):
        for _, entry in _fields(features):
            (_, name), (_, feature) = _fields(entry)
            ((kind, values),) = _fields(feature)
            assert kind in (1, 3)
            if kind == 1:
                found[name.decode()] = ("bytes", [value for _, value in _fields(values)])
                continue
            numbers, at = [], 0
            ((_, packed),) = _fields(values)
            while at < len(packed):
                number, at = _varint(packed, at)
                numbers.append(number)
            found[name.decode()] = ("int64", numbers)
    return found


def _to_varint(value):
    coded = b""
    while value > 127:
        coded, value = coded + bytes([value & 127 | 128]), value >> 7
    return coded + bytes([value])


def _field(number, data):
    return _to_varint(number << 3 | 2) + _to_varint(len(data)) + data


def old_example(image, unpacked=False):
    """A record in the older format for uint8 [C, H, W]; `unpacked` writes the shape with one number per field, as old writers may."""
    if unpacked:
        numbers = b"".join(b"\x08" + _to_varint(size) for size in image.shape)
    else:
        numbers = _field(1, b"".join(map(_to_varint, image.shape)))
    shape = _field(1, _field(1, b"shape") + _field(2, _field(3, numbers)))
    data = _field(1, _field(1, b"data") + _field(2, _field(1, _field(1, image.tobytes()))))
    return _field(1, shape + data)


def write_old_dataset(folder, name, images, labels=None, shards=1, **options):
    """A dataset in the older format from uint8 [n, C, H, W], written without this project's code."""
    os.makedirs(str(folder), exist_ok=True)
    log2 = images.shape[-1].bit_length() - 1
    for number, part in enumerate(np.array_split(images, shards), start=1):
        with open(os.path.join(str(folder), f"{name}-r{log2:02d}.tfrecords{number}of{shards}"), "wb") as file:
            for image in part:
                data = old_example(image, **options)
                length = struct.pack("<Q", len(data))
                file.write(length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data)))
    if labels is not None:
        with open(os.path.join(str(folder), f"{name}-rxx.labels"), "wb") as file:
            np.save(file, np.asarray(labels, np.float32))


def noise(count, size=16, channels=3, seed=0):
    """Random pictures, uint8 [count, size, size, channels]."""
    return np.random.RandomState(seed).randint(256, size=[count, size, size, channels]).astype(np.uint8)


def smooth_picture(height, width, seed=0):
    """A smooth random colour picture, uint8 [height, width, 3]."""
    small = np.random.RandomState(seed).randint(256, size=[4, 4, 3]).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def write_pngs(folder, pictures, names=None):
    """Write uint8 [n, H, W, C] as PNG files; returns their paths."""
    paths = []
    for number, pixels in enumerate(pictures):
        path = os.path.join(str(folder), names[number] if names else f"{number:04d}.png")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def image_bytes(pixels, format, **options):
    """An encoded image file, as bytes."""
    output = io.BytesIO()
    Image.fromarray(pixels).save(output, format, **options)
    return output.getvalue()


def png_of_size(width, height):
    """A PNG file that claims to hold so many pixels, but has only one."""
    whole = image_bytes(np.zeros([1, 1], np.uint8), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + whole[24:29]
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


def prepare_process(*arguments, **options):
    """Run prepare_data.py. Returns the finished process with its output as text."""
    command = [sys.executable, os.path.join(ROOT, "prepare_data.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def prepare(capsys, *arguments):
    """The same within this process: (exit code, stdout, stderr)."""
    code = run_main(cli.main, ["--num-workers", "1", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def error_line(stderr):
    """The only line of an error message, which must not contain a traceback."""
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), stderr
    return lines[0]


def folder_bytes(folder):
    """Dict file name -> contents of a folder."""
    found = {}
    for name in sorted(os.listdir(str(folder))):
        with open(os.path.join(str(folder), name), "rb") as file:
            found[name] = file.read()
    return found
