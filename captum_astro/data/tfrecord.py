"""TFRecord files, read without TensorFlow."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from captum_astro.data.files import LARGEST_ARRAY, regular_file
from captum_astro.extras import needed

_HEADER, _FOOTER = 12, 4


class CorruptRecordError(ValueError):
    """A record that cannot be read. The message names the file, the place in it, and what is wrong."""


class Frame(NamedTuple):
    """One record as framed: its number in the file, its byte offset, its data, and what is wrong with it."""

    number: int
    offset: int
    payload: bytes
    problem: str


def frames(path: Path | str, check: bool = True, first: int = 0, step: int = 1) -> Iterator[Frame]:
    """Read the records ``first``, ``first + step``, ``first + 2 * step`` and so on, continuing after damaged data.

    The data of other records is not read. A record with a problem has no data; if its length is in doubt, or the file
    is cut short, it is the last one.

    Args:
        path: The file, not compressed.
        check: Verify the checksums. Otherwise damaged data is not detected.
        first: The number of the first record to read.
        step: The distance between records to read.

    Raises:
        MissingExtraError: If checksums are wanted and google-crc32c is not installed.
        DataError: If it is not a regular file.
        OSError: If the file cannot be opened.

    Source:
        https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details".

    Example:
        >>> import tempfile
        >>> data = bytes.fromhex("0200000000000000 00000000 6869 00000000")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.tfrecords").write_bytes(data)
        ...     [frame.payload for frame in frames(f"{folder}/a.tfrecords", check=False)]
        [b'hi']
    """
    checksum = _masked_crc32c() if check else None
    with open(regular_file(path), "rb") as file:
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


def _masked_crc32c() -> Callable[[bytes], int]:
    google_crc32c = needed("The checksums of a TFRecord file", "google_crc32c")

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
    if length > LARGEST_ARRAY:
        return 0, f"{length} bytes, more than {LARGEST_ARRAY >> 20} MiB, so nothing from here on is read"
    return length, ""
