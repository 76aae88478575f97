"""TFRecord files and the ``tf.train.Example`` messages inside them, read without TensorFlow."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER, _FOOTER = 12, 4
_VARINT, _BYTES, _FIXED32 = 0, 2, 5
_WIDTHS = {1: 8, _FIXED32: 4}
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3


class CorruptRecordError(ValueError):
    """A record that cannot be read. The message names the file, the place in it, and what is wrong."""


class Frame(NamedTuple):
    """One record as framed: its number in the file, the byte it begins at, its data, and what is wrong with it."""

    number: int
    offset: int
    payload: bytes
    problem: str


class _Field(NamedTuple):
    number: int
    wire: int
    value: memoryview
    varint: int


def records(path: Path | str, check: bool = True) -> Iterator[tuple[int, bytes]]:
    """Read the records of a TFRecord file one at a time.

    Args:
        path: The file, not compressed.
        check: Compare the checksums. Without this, damaged data pass unseen.

    Yields:
        The byte at which a record begins, and its data.

    Raises:
        CorruptRecordError: If a checksum does not match or the file is cut short.
        ImportError: If checksums are wanted and google-crc32c is not installed.
        OSError: If the file cannot be opened.

    Source:
        https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details".

    Example:
        >>> import tempfile
        >>> data = bytes.fromhex("0200000000000000 00000000 6869 00000000")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.tfrecords").write_bytes(data)
        ...     list(records(f"{folder}/a.tfrecords", check=False))
        [(0, b'hi')]
    """
    for frame in frames(path, check):
        if frame.problem:
            raise CorruptRecordError(f"{path}: record {frame.number} at byte {frame.offset}: {frame.problem}.")
        yield frame.offset, frame.payload


def frames(path: Path | str, check: bool = True, first: int = 0, step: int = 1) -> Iterator[Frame]:
    """Read the records ``first``, ``first + step``, ``first + 2 * step`` and so on, and go on after damaged data.

    The data of other records are not read. A record with a problem has no data; where its length is in doubt, or the
    file is cut short, it is the last one.

    Raises:
        ImportError: If checksums are wanted and google-crc32c is not installed.
        OSError: If the file cannot be opened.
    """
    checksum = _masked_crc32c() if check else None
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = number = 0
        while offset < size:
            header = file.read(_HEADER)
            length, problem = _length(header, size - offset, checksum)
            wanted = number % step == first
            if problem:
                if wanted:
                    yield Frame(number, offset, b"", problem)
                return
            if wanted:
                payload = file.read(length)
                (stored,) = struct.unpack("<I", file.read(_FOOTER))
                if checksum is not None and checksum(payload) != stored:
                    yield Frame(number, offset, b"", "the data do not match their checksum")
                else:
                    yield Frame(number, offset, payload, "")
            else:
                file.seek(length + _FOOTER, os.SEEK_CUR)
            offset += _HEADER + length + _FOOTER
            number += 1


def parse_example(payload: bytes) -> dict[str, list[bytes] | list[float] | list[int]]:
    """Read a serialised ``tf.train.Example``.

    Lists may be packed or not, fields that the message does not have are passed over, and of two features with one name
    the later counts, as in any protobuf reader.

    Args:
        payload: The data of one record.

    Returns:
        By feature name a list of bytes, of floats or of integers; an empty list where the feature holds nothing.

    Raises:
        ValueError: If these are not the bytes of an Example.

    Source:
        https://protobuf.dev/programming-guides/encoding/ and tensorflow/core/example/{example,feature}.proto.

    Example:
        >>> parse_example(bytes.fromhex("0a120a100a056c6162656c12071a050a0307ac02"))
        {'label': [7, 300]}
    """
    features: dict[str, list[bytes] | list[float] | list[int]] = {}
    for top in _fields(memoryview(payload)):
        if top.number == 1:
            for entry in _fields(_message(top)):
                if entry.number == 1:
                    name, feature = _named_feature(_message(entry))
                    features[name] = feature
    return features


def _masked_crc32c() -> Callable[[bytes], int]:
    try:
        import google_crc32c
    except ImportError as error:
        raise ImportError(
            "TFRecord files carry CRC-32C checksums, and google-crc32c is not installed: "
            'pip install "captum-astro[clickme]"'
        ) from error

    def masked(data: bytes) -> int:
        crc = int(google_crc32c.value(data))
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    return masked


def _length(header: bytes, left: int, checksum: Callable[[bytes], int] | None) -> tuple[int, str]:
    """The length of the data, and what is wrong with it; ``left`` bytes of file remain, the header included."""
    if len(header) < _HEADER:
        return 0, f"cut short: {len(header)} of the {_HEADER} bytes that give its length"
    length, stored = struct.unpack("<QI", header)
    if checksum is not None and checksum(header[:8]) != stored:
        return 0, "the length does not match its checksum, so nothing from here on can be read"
    there = left - _HEADER - _FOOTER
    if length > there:
        return 0, f"cut short: {length} bytes of data are announced, {max(0, there)} are there"
    return length, ""


def _named_feature(message: memoryview) -> tuple[str, list[bytes] | list[float] | list[int]]:
    name, feature = "", memoryview(b"")
    for field in _fields(message):
        if field.number == 1:
            name = str(_message(field), "utf-8")
        elif field.number == 2:
            feature = _message(field)
    return name, _feature(feature)


def _feature(message: memoryview) -> list[bytes] | list[float] | list[int]:
    """The one list that is set: set twice it grows, and one of another kind replaces it."""
    kind = 0
    blobs: list[bytes] = []
    floats: list[float] = []
    integers: list[int] = []
    for content in _fields(message):
        if content.number not in (_BYTES_LIST, _FLOAT_LIST, _INT64_LIST):
            continue
        if content.number != kind:
            kind, blobs, floats, integers = content.number, [], [], []
        for field in _fields(_message(content)):
            if field.number != 1:
                continue
            if kind == _BYTES_LIST:
                blobs.append(bytes(_message(field)))
            elif kind == _FLOAT_LIST:
                floats += _floats(field)
            else:
                integers += _integers(field)
    if kind == _FLOAT_LIST:
        return floats
    return integers if kind == _INT64_LIST else blobs


def _floats(field: _Field) -> tuple[float, ...]:
    if field.wire not in (_BYTES, _FIXED32) or len(field.value) % 4:
        raise ValueError("a list of floats is not made of 4-byte numbers.")
    return struct.unpack(f"<{len(field.value) // 4}f", field.value)


def _integers(field: _Field) -> list[int]:
    if field.wire == _VARINT:
        unsigned = [field.varint]
    else:
        unsigned, at, packed = [], 0, _message(field)
        while at < len(packed):
            value, at = _varint(packed, at)
            unsigned.append(value)
    return [value - (1 << 64) if value >> 63 else value for value in unsigned]


def _message(field: _Field) -> memoryview:
    if field.wire != _BYTES:
        raise ValueError(f"field {field.number} has wire type {field.wire}, where {_BYTES} belongs.")
    return field.value


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of one message in the order written."""
    at, nothing = 0, memoryview(b"")
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field has the number 0.")
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield _Field(number, wire, nothing, value)
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in _WIDTHS:
            size = _WIDTHS[wire]
        else:
            raise ValueError(f"field {number} has wire type {wire}, which an Example does not use.")
        if size > len(message) - at:
            raise ValueError(f"field {number} is cut short: {size} bytes announced, {len(message) - at} there.")
        yield _Field(number, wire, message[at : at + size], 0)
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An unsigned 64-bit number of at most ten bytes, and where it ends."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + place + 1
    raise ValueError("a number has no end.")
