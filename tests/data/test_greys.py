from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_astro.data.image_error import ImageError
from captum_astro.data.images import open_encoded, open_image

RAMP = np.linspace(0, 1, 4096).reshape(64, 64)


def _levels(array: np.ndarray, path: Path, **options: Any) -> np.ndarray:
    """What is shown, one channel: all three are equal."""
    Image.fromarray(array).save(path, **options)
    shown = np.asarray(open_image(path))
    assert (shown == shown[..., :1]).all()
    return shown[..., 0]


def _between(values: np.ndarray, black: float, white: float) -> np.ndarray:
    return ((values.astype(np.float64) - black) / (white - black) * 255).round()


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2"])
@pytest.mark.parametrize("values", [RAMP * 65535, RAMP * 20000, RAMP * 0], ids=["all", "a third", "black"])
def test_16_bits(tmp_path: Path, values: np.ndarray, suffix: str) -> None:
    array = values.astype(np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(_levels(array, tmp_path / f"a.{suffix}"), _between(array, 0, 65535))


@pytest.mark.parametrize("kind", ["uint16", ">u2", "int32"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_more(tmp_path: Path, kind: str, bits: int) -> None:
    array = (RAMP * (2**bits - 1)).astype(kind)
    with pytest.warns(UserWarning, match=rf"a\.tif: a grey with values from 0 to {2**bits - 1}, read as {bits} bits"):
        shown = _levels(array, tmp_path / "a.tif")
    assert np.array_equal(shown, _between(array, 0, 2**bits - 1))


@pytest.mark.parametrize(
    "array",
    [
        (RAMP * -30).astype(np.float32),
        (RAMP * 100 + 273).astype(np.float32),
        (RAMP * 0.01).astype(np.float32),
        (RAMP * 1e6).astype(np.int32),
        (RAMP * 2000 - 1000).astype(np.int32),
        (RAMP * 2000 - 1000).astype(np.int16),
        (RAMP * 3).astype(np.uint16),
    ],
    ids=["decibel", "kelvin", "faint", "counts", "signed", "signed 16", "labels"],
)
def test_other_values_span_their_own_range(tmp_path: Path, array: np.ndarray) -> None:
    short = array.dtype == np.int16  # Pillow reads it but does not write it: an unsigned file with another tag
    written, options = (array.view(np.uint16), {"tiffinfo": {339: 2}}) if short else (array, {})
    with pytest.warns(UserWarning, match=r"a\.tif: a grey with values from .*the least is shown black"):
        shown = _levels(written, tmp_path / "a.tif", **options)
    assert np.array_equal(shown, _between(array, float(array.min()), float(array.max())))


def test_floats_of_an_image(tmp_path: Path) -> None:
    array = RAMP.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(_levels(array, tmp_path / "a.tif"), _between(array, 0, 1))
        assert np.array_equal(_levels(array, tmp_path / "b.tif", tiffinfo={262: 0}), _between(1 - array, 0, 1))
        assert set(np.unique(_levels(np.full((4, 4), 0.1, np.float32), tmp_path / "c.tif"))) == {26}


def test_unsigned_32_bits(tmp_path: Path) -> None:
    array = np.array([[0, 2**31, 2**32 - 1]], np.uint32)
    Image.fromarray(array.view(np.int32)).save(tmp_path / "a.tif")
    signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, form, 0) for form in (2, 1))  # Pillow writes only the former
    data = (tmp_path / "a.tif").read_bytes()
    assert data.count(signed) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(signed, unsigned))
    with pytest.warns(UserWarning, match=r"from 0 to 4\.29497e\+09"):
        assert np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38, -3.4028235e38, 1e20, -9999, -32768])
def test_pixels_without_a_value(tmp_path: Path, value: float) -> None:
    array = (RAMP * 100).astype(np.float32)
    array[3, 4:7] = value
    with pytest.raises(ImageError, match=r"a\.tif: 3 pixels have no value: they are .*8 bits"):
        _levels(array, tmp_path / "a.tif")


def test_missing_data_by_its_tag(tmp_path: Path) -> None:
    array = np.full((2, 3), 500, np.uint16)
    array[0, 0] = 7
    with pytest.raises(ImageError, match="1 pixels have no value: they are 7"):
        _levels(array, tmp_path / "a.tif", tiffinfo={42113: "7"})
    with pytest.warns(UserWarning, match="read as 10 bits"):
        _levels(array, tmp_path / "a.tif", tiffinfo={42113: "nan"})


def test_a_low_value_among_its_neighbours_is_a_value(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="from -9999 to 0"):
        _levels((RAMP * 9999 - 9999).astype(np.float32), tmp_path / "a.tif")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(depth: int, colour: int, width: int, row: bytes, *chunks: bytes) -> bytes:
    """A PNG of one row: colour 0 is grey, 2 is RGB."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", zlib.compress(b"\0" + row)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _deep_png(colour: int, row: list[int], *chunks: bytes) -> bytes:
    width = len(row) // (3 if colour == 2 else 1)
    return _png(16, colour, width, struct.pack(f">{len(row)}H", *row), *chunks)


@pytest.mark.parametrize(
    ("depth", "row", "clear", "expected"),
    [
        (1, b"\x40", 1, [0, 255]),
        (1, b"\x40", 0, [255, 255]),
        (2, b"\x1b", 1, [0, 255, 170, 255]),
        (4, b"\x0f\x3c", 3, [0, 255, 255, 204]),
        (8, b"\x03\x09", 3, [255, 9]),
    ],
)
def test_a_transparent_value_of_few_bits(depth: int, row: bytes, clear: int, expected: list[int]) -> None:
    data = _png(depth, 0, len(expected), row, _chunk(b"tRNS", struct.pack(">H", clear)))
    assert np.asarray(open_encoded(data, "a"))[0, :, 0].tolist() == expected


def test_a_transparent_colour_of_16_bits() -> None:
    data = _deep_png(2, [40000, 0, 999, 40000, 0, 65535], _chunk(b"tRNS", struct.pack(">3H", 40000, 0, 999)))
    assert np.asarray(open_encoded(data, "a"))[0].tolist() == [[255, 255, 255], [156, 0, 255]]


def test_a_transparent_grey() -> None:
    data = _deep_png(0, [500, 0, 65535, 30000], _chunk(b"tRNS", struct.pack(">H", 500)))
    assert np.asarray(open_encoded(data, "a"))[0, :, 0].tolist() == [255, 0, 255, 117]


def test_colours_of_16_bits_that_are_almost_black() -> None:
    with pytest.warns(UserWarning, match=r"row 3: colours of 16 bits, of which the largest is 15 of 255"):
        open_encoded(_deep_png(2, [4095, 0, 9]), "row 3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_encoded(_deep_png(2, [40000, 0, 9]), "row 3").getpixel((0, 0)) == (156, 0, 0)


def test_pfm() -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(file, "PPM")
    with pytest.raises(ImageError, match="row 0: 4 pixels have no value"):
        open_encoded(file.getvalue(), "row 0")
