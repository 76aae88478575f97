from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_astro.data._example import parse_example
from captum_astro.data.tfrecord import CorruptRecordError, frames

Value = list[bytes] | list[float] | list[int]


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def framed(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked(length)) + payload + struct.pack("<I", masked(payload))


def records(path: Path, check: bool = True) -> Iterator[tuple[int, bytes]]:
    """The offset of each record and its data, up to the first with a problem."""
    for frame in frames(path, check):
        if frame.problem:
            raise CorruptRecordError(f"{path}: record {frame.number} at byte {frame.offset}: {frame.problem}")
        yield frame.offset, frame.payload


def write_records(path: Path, payloads: Iterable[bytes]) -> None:
    path.write_bytes(b"".join(map(framed, payloads)))


def varint(value: int) -> bytes:
    value %= 2**64
    digits = []
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit + 128 if value else digit)
        if not value:
            return bytes(digits)


def delimited(number: int, content: bytes) -> bytes:
    return varint(number * 8 + 2) + varint(len(content)) + content


def make_feature(value: Value, packed: bool = True) -> bytes:
    first = value[0] if value else b""
    if isinstance(first, bytes):
        return delimited(1, b"".join(delimited(1, v) for v in value)) if value else b""
    if isinstance(first, float):
        numbers = [struct.pack("<f", v) for v in value]
        return delimited(2, delimited(1, b"".join(numbers)) if packed else b"".join(b"\x0d" + n for n in numbers))
    numbers = [varint(v) for v in value]
    return delimited(3, delimited(1, b"".join(numbers)) if packed else b"".join(b"\x08" + n for n in numbers))


def make_example(features: Mapping[str, Value], packed: bool = True) -> bytes:
    entries = [
        delimited(1, delimited(1, name.encode()) + delimited(2, make_feature(value, packed)))
        for name, value in features.items()
    ]
    return delimited(1, b"".join(entries))


FEATURES = st.dictionaries(
    st.text(max_size=8),
    st.one_of(
        st.lists(st.binary(max_size=200), max_size=4),
        st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20),
    ),
    max_size=5,
)


def test_checksum_of_a_known_record(tmp_path: Path) -> None:
    """Every event file of TensorBoard begins with these twelve bytes: 24 bytes of data follow."""
    (tmp_path / "a").write_bytes(bytes.fromhex("1800000000000000a37f4b22") + bytes(28))
    with pytest.raises(CorruptRecordError, match="the data do not match their checksum"):
        next(records(tmp_path / "a"))
    assert next(records(tmp_path / "a", check=False)) == (0, bytes(24))


def test_records(tmp_path: Path) -> None:
    payloads = [b"", b"one", bytes(1000), b"\xff" * 7]
    write_records(tmp_path / "a", payloads)
    for check in (True, False):
        offsets, found = zip(*records(tmp_path / "a", check), strict=True)
        assert list(found) == payloads
        assert offsets == (0, 16, 35, 1051)
    for step in range(1, 6):
        parts = [list(frames(tmp_path / "a", True, first, step)) for first in range(step)]
        assert sorted(f.number for part in parts for f in part) == [0, 1, 2, 3]
        assert all(f.payload == payloads[f.number] and not f.problem for part in parts for f in part)
    (tmp_path / "empty").touch()
    assert list(records(tmp_path / "empty")) == []


@pytest.mark.parametrize("place", range(12))
def test_bit_flip_in_the_length(tmp_path: Path, place: int) -> None:
    _damage(tmp_path / "a", 20 + place)
    stream = records(tmp_path / "a")
    assert next(stream) == (0, b"aaaa")
    with pytest.raises(CorruptRecordError, match=r"a: record 1 at byte 20: the length does not match its checksum"):
        next(stream)
    found = list(frames(tmp_path / "a"))
    assert [f.payload for f in found] == [b"aaaa", b""]
    assert [list(frames(tmp_path / "a", True, i, 3))[-1:] for i in (0, 2)] == [[found[0]], []]


@pytest.mark.parametrize("place", range(12, 21))
def test_bit_flip_in_the_data_or_checksum(tmp_path: Path, place: int) -> None:
    _damage(tmp_path / "a", 20 + place)
    with pytest.raises(CorruptRecordError, match=r"a: record 1 at byte 20: the data do not match their checksum"):
        list(records(tmp_path / "a"))
    assert [f.payload for f in frames(tmp_path / "a")] == [b"aaaa", b"", b"cccccc"]
    assert len(list(records(tmp_path / "a", check=False))) == 3


@pytest.mark.parametrize("length", range(21, 41))
def test_cut_short(tmp_path: Path, length: int) -> None:
    _damage(tmp_path / "a", None)
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:length])
    for check in (True, False):
        stream = records(tmp_path / "a", check)
        assert next(stream) == (0, b"aaaa")
        with pytest.raises(CorruptRecordError, match=r"a: record 1 at byte 20: cut short"):
            next(stream)


def test_an_absurd_length_is_not_allocated(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff" * 64)
    with pytest.raises(CorruptRecordError, match=r"byte 0: cut short: 18446744073709551615 bytes .* 48 are there"):
        next(records(tmp_path / "a", check=False))


def _damage(path: Path, place: int | None) -> None:
    write_records(path, [b"aaaa", b"bbbbb", b"cccccc"])
    data = bytearray(path.read_bytes())
    if place is not None:
        data[place] ^= 0x10
    path.write_bytes(data)


def test_without_google_crc32c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records(tmp_path / "a", [b"x"])
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(ImportError, match=r'pip install "captum-astro\[clickme\]"'):
        next(records(tmp_path / "a"))
    assert next(records(tmp_path / "a", check=False)) == (0, b"x")


@given(FEATURES, st.booleans())
def test_example_round_trip(features: dict[str, Value], packed: bool) -> None:
    parsed = parse_example(make_example(features, packed))
    assert parsed == features
    for name, value in features.items():
        assert [type(v) for v in parsed[name]] == [type(v) for v in value]


@given(st.binary(max_size=80))
def test_any_bytes_parse_or_raise(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_example(data)


@given(FEATURES, st.data())
def test_damaged_examples_parse_or_raise(features: dict[str, Value], data: st.DataObject) -> None:
    message = bytearray(make_example(features))
    place = data.draw(st.integers(0, len(message) - 1))
    message[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        parse_example(bytes(message))
    with pytest.raises(ValueError, match=r"cut short|no end"):
        parse_example(make_example({"a": [b"abc"], **features})[:-1])


def test_all_valid_protobuf_encodings() -> None:
    strange = (
        varint(9 * 8) + varint(5) + varint(9 * 8 + 1) + bytes(8) + varint(9 * 8 + 5) + bytes(4) + delimited(9, b"x")
    )
    feature = delimited(3, strange + b"\x08\x07" + delimited(1, b"\x01\x02")) + delimited(3, b"\x08\x03")
    entry = strange + delimited(2, feature) + delimited(1, b"a")
    message = strange + delimited(1, strange + delimited(1, entry)) + delimited(1, delimited(1, delimited(1, b"b")))
    assert parse_example(message) == {"a": [7, 1, 2, 3], "b": []}
    replaced = delimited(2, make_feature([1.5]) + make_feature([b"x"]))
    assert parse_example(delimited(1, delimited(1, replaced))) == {"": [b"x"]}
    assert parse_example(make_example({"a": [1]}) + make_example({"a": [2]})) == {"a": [2]}
    assert parse_example(b"") == {}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x0a\x05abc", "field 1 is cut short: 5 bytes announced, 3 there"),
        (b"\x80" * 11, "no end"),
        (b"\x0a", "no end"),
        (b"\x02\x00", "number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01", "field 1 has wire type 0"),
        (delimited(1, delimited(1, delimited(2, delimited(2, delimited(1, b"abcde"))))), "4-byte numbers"),
        (delimited(1, delimited(1, delimited(2, delimited(2, b"\x09" + bytes(8))))), "4-byte numbers"),
        (delimited(1, delimited(1, delimited(2, delimited(3, b"\x0d" + bytes(4))))), "wire type 5"),
        (delimited(1, delimited(1, delimited(2, delimited(3, delimited(1, b"\x80"))))), "no end"),
        (delimited(1, delimited(1, delimited(1, b"\xff"))), "utf-8"),
    ],
)
def test_bad_examples(message: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_example(message)
