"""TFRecord files and the tf.train.Example records in them, without importing TensorFlow.

A TFRecord file is a sequence of: length (uint64), masked crc32c of the length, data, masked crc32c of the data, all little-endian.
A process that only prepares data should not have to import TensorFlow (seconds, half a gigabyte), and TensorFlow's public readers do not
support offsets; so the framing is done here, the checksums by google-crc32c and the messages by protobuf.
"""

from __future__ import annotations

import functools
import os
import struct

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from dnnlib.errors import UserError

HEADER_SIZE, FOOTER_SIZE = 12, 4


def masked_crc(data):
    """The checksum of a TFRecord: crc32c, rotated and offset, so that it also works for records within records."""
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class RecordWriter:
    """Writes a TFRecord file.

    Attributes:
        positions: list of (offset, data length) of the records so far.
        size: bytes so far.
        digest: crc32c of the records' own checksums, which identifies the contents of the file.
    """

    def __init__(self, file):
        self._file = file
        self.positions, self.size, self.digest = [], 0, 0

    def write(self, data):
        """Append one record (bytes)."""
        length = struct.pack("<Q", len(data))
        footer = struct.pack("<I", masked_crc(data))
        self._file.write(length + struct.pack("<I", masked_crc(length)) + data + footer)
        self.positions.append((self.size, len(data)))
        self.size += HEADER_SIZE + len(data) + FOOTER_SIZE
        self.digest = google_crc32c.extend(self.digest, footer)


def scan(path):
    """Find the records of a TFRecord file by their lengths, without reading the data.

    Returns:
        (positions, digest) as in RecordWriter.

    Raises:
        UserError: a length is damaged or the file ends inside a record.
    """
    positions, digest, offset = [], 0, 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        around = os.pread(file.fileno(), HEADER_SIZE, 0)
        while offset < size:
            length = _checked_length(around, path, offset)
            end = offset + HEADER_SIZE + length + FOOTER_SIZE
            if end > size:
                raise UserError(f"{path}: truncated inside the record at offset {offset} ({size} bytes, the record ends at {end})")
            positions.append((offset, length))
            around = os.pread(file.fileno(), FOOTER_SIZE + HEADER_SIZE, end - FOOTER_SIZE)
            digest = google_crc32c.extend(digest, around[:FOOTER_SIZE])
            around, offset = around[FOOTER_SIZE:], end
    return positions, digest


def _checked_length(header, path, offset):
    if len(header) < HEADER_SIZE:
        raise UserError(f"{path}: truncated inside the record at offset {offset}")
    length, crc = struct.unpack("<QI", header)
    if masked_crc(header[:8]) != crc:
        raise UserError(f"{path}: corrupt record at offset {offset} (checksum of its length)")
    return length


def read(file, offset, length):
    """Read one record; safe to call from many threads.

    Args:
        file: file open for reading bytes, unbuffered or not.
        offset: where the record begins.
        length: length of its data in bytes.

    Returns:
        The data (bytes).

    Raises:
        UserError: a checksum does not match; the message has file and offset.
    """
    whole = os.pread(file.fileno(), HEADER_SIZE + length + FOOTER_SIZE, offset)
    if _checked_length(whole[:HEADER_SIZE], file.name, offset) != length or len(whole) != HEADER_SIZE + length + FOOTER_SIZE:
        raise UserError(f"{file.name}: no record of {length} bytes at offset {offset}")
    data = whole[HEADER_SIZE:-FOOTER_SIZE]
    if struct.pack("<I", masked_crc(data)) != whole[-FOOTER_SIZE:]:
        raise UserError(f"{file.name}: corrupt record at offset {offset} (checksum of its data)")
    return data


def encode_example(features):
    """Serialize a dict name -> bytes or list of integers as a tf.train.Example, sorted by name."""
    example = _example_class()()
    for name in sorted(features):
        entry = example.features.feature.add(key=name)
        if isinstance(features[name], bytes):
            entry.value.bytes_list.value.append(features[name])
        else:
            entry.value.int64_list.value.extend(features[name])
    return example.SerializeToString()


def decode_example(data):
    """Parse a tf.train.Example: dict name -> bytes (the first value) or list of integers; other kinds are ignored.

    Raises:
        ValueError: it is not a tf.train.Example.
    """
    try:
        example = _example_class().FromString(data)
    except Exception as error:     # the base class of protobuf's DecodeError depends on the release
        raise ValueError("not a tf.train.Example") from error
    features = {}
    for entry in example.features.feature:
        if entry.value.bytes_list.value:
            features[entry.key] = entry.value.bytes_list.value[0]
        elif entry.value.int64_list.value:
            features[entry.key] = list(entry.value.int64_list.value)
    return features


@functools.lru_cache(maxsize=None)
def _example_class():
    """A message class with the wire format of tf.train.Example: a map is a repeated entry, a oneof the fields that are present."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="dnnlib/records.proto", package="dnnlib.records", syntax="proto3")
    for name, fields in (
        ("BytesList", [("value", field.TYPE_BYTES, True)]),
        ("FloatList", [("value", field.TYPE_FLOAT, True)]),
        ("Int64List", [("value", field.TYPE_INT64, True)]),
        ("Feature", [("bytes_list", "BytesList", False), ("float_list", "FloatList", False), ("int64_list", "Int64List", False)]),
        ("Entry", [("key", field.TYPE_STRING, False), ("value", "Feature", False)]),
        ("Features", [("feature", "Entry", True)]),
        ("Example", [("features", "Features", False)]),
    ):
        message = file.message_type.add(name=name)
        for number, (label, kind, repeated) in enumerate(fields, start=1):
            entry = message.field.add(name=label, number=number, label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                entry.type, entry.type_name = field.TYPE_MESSAGE, f".dnnlib.records.{kind}"
            else:
                entry.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("dnnlib.records.Example")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)     # protobuf 3
