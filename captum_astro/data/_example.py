"""The ``tf.train.Example`` messages inside TFRecord files, read without TensorFlow or protobuf."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _BYTES, _FIXED32 = 0, 2, 5
_WIDTHS = {1: 8, _FIXED32: 4}
_MOST = 1 << 20  # values of a list, or features: as Python's numbers they are up to 40 times as large as in the file
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3


class _Field(NamedTuple):
    number: int
    wire: int
    value: memoryview
    varint: int


def parse_example(payload: bytes) -> dict[str, list[bytes] | list[float] | list[int]]:
    """Read a serialised ``tf.train.Example``.

    Lists may be packed or not, unknown fields are ignored, and of two features with the same name the later counts, as
    in any protobuf reader.

    Args:
        payload: The data of one record.

    Returns:
        By feature name a list of bytes, of floats or of integers; an empty list for an empty feature.

    Raises:
        ValueError: If these are not the bytes of an Example, or a list has more than a million values.

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
                _limited(len(features))
    return features


def _named_feature(message: memoryview) -> tuple[str, list[bytes] | list[float] | list[int]]:
    name, feature = "", memoryview(b"")
    for field in _fields(message):
        if field.number == 1:
            name = str(_message(field), "utf-8")
        elif field.number == 2:
            feature = _message(field)
    return name, _feature(feature)


def _feature(message: memoryview) -> list[bytes] | list[float] | list[int]:
    """The one list that is set: a second one of the same kind extends it, one of another kind replaces it."""
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
            _limited(len(blobs) + len(floats) + len(integers))
    if kind == _FLOAT_LIST:
        return floats
    return integers if kind == _INT64_LIST else blobs


def _floats(field: _Field) -> tuple[float, ...]:
    if field.wire not in (_BYTES, _FIXED32) or len(field.value) % 4:
        raise ValueError("a list of floats is not made of 4-byte numbers.")
    _limited(len(field.value) // 4)
    return struct.unpack(f"<{len(field.value) // 4}f", field.value)


def _integers(field: _Field) -> list[int]:
    if field.wire == _VARINT:
        unsigned = [field.varint]
    else:
        unsigned, at, packed = [], 0, _message(field)
        while at < len(packed):
            value, at = _varint(packed, at)
            unsigned.append(value)
            _limited(len(unsigned))
    return [value - (1 << 64) if value >> 63 else value for value in unsigned]


def _limited(count: int) -> None:
    if count > _MOST:
        raise ValueError(f"more than {_MOST} values in a list, or features.")


def _message(field: _Field) -> memoryview:
    if field.wire != _BYTES:
        raise ValueError(f"field {field.number} has wire type {field.wire}, where {_BYTES} belongs.")
    return field.value


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of one message in the order in which they were written."""
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
    """An unsigned 64-bit number of at most ten bytes, and the position of its end."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + place + 1
    raise ValueError("a number has no end.")
