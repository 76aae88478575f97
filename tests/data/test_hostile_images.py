"""Files that are made to run a program, to wait for ever, or to fill the memory."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import EpsImagePlugin, Image, PngImagePlugin

import captum_astro
from captum_astro.data.arrays import decoded
from captum_astro.data.cifar import read_cifar
from captum_astro.data.image_error import ImageError
from captum_astro.data.images import MOST_PIXELS, load_encoded, load_image, open_encoded, open_image
from captum_astro.data.masks import imagenet_s_mask, plain_mask, voc_mask
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.report.pictures import _image
from captum_astro.evaluation.run.failures import is_of_the_machine

READERS = {
    "open_image": open_image,
    "load_image": lambda path: load_image(path, upright=True),
    "load_encoded": lambda path: load_encoded(path.read_bytes(), "row 1"),
    "open_encoded": lambda path: open_encoded(path.read_bytes(), "row 1"),
    "decoded": lambda path: decoded(path.read_bytes(), 3),
    "plain_mask": plain_mask,
    "voc_mask": voc_mask,
    "imagenet_s_mask": imagenet_s_mask,
}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(out) (w) file closefile\nshowpage\n"


def _png(width: int, height: int, depth: int = 8, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_images_are_decoded_in_one_place() -> None:
    root = Path(captum_astro.__file__).parent
    decoders = re.compile(r"Image\.open\(|\bimread\(|\bread_image\(|\bdecode_(image|jpeg|png)\(|ImageFile\.Parser")
    found = [
        (f.relative_to(root).as_posix(), m[0]) for f in root.rglob("*.py") for m in decoders.finditer(f.read_text())
    ]
    assert found == [("data/images.py", "Image.open(")]
    assert "Image.open(file, formats=" in (root / "data" / "images.py").read_text()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What Ghostscript would have been started with."""
    started: list[object] = []

    def ghostscript(*arguments: object, **options: object) -> None:
        started.append(arguments)
        raise OSError("no Ghostscript")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    return started


@pytest.mark.parametrize("reader", READERS)
def test_no_program_is_started(tmp_path: Path, programs: list[object], reader: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(EPS)
    with pytest.raises(ValueError, match=r"photo\.jpg: not an image|row 1: not an image|not a JPEG or PNG"):
        READERS[reader](tmp_path / "photo.jpg")
    assert not programs


def test_no_program_is_started_by_tables(tmp_path: Path, programs: list[object]) -> None:
    pd.DataFrame({"img": [EPS], "label": [1]}).to_parquet(tmp_path / "cifar10_test.parquet")
    with pytest.raises(ImageError, match="row 0: not an image"):
        read_cifar(tmp_path, "test")
    assert _image(pd.Series({"data": EPS, "name": "a"})) is None
    assert not programs


@pytest.mark.parametrize("read", [open_image, plain_mask])
def test_only_files_are_opened(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path, message in (
        (tmp_path / "pipe.png", "a pipe or a device"),
        (Path("/dev/zero"), "a pipe or a device"),
        (tmp_path, "this is a folder"),
        (tmp_path / "none.png", "there is no such file"),
        (tmp_path / ("a" * 300), "cannot be opened"),
        (tmp_path / "a\0.png", "cannot be opened"),
    ):
        with pytest.raises(ImageError, match=message):
            read(path)


@pytest.mark.parametrize("reader", [name for name in READERS if name != "imagenet_s_mask"])
@pytest.mark.parametrize("sides", [(2**14, 2**13 + 1), (60_000, 60_000), (2**31 - 1, 1)])
def test_too_many_pixels(tmp_path: Path, reader: str, sides: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(_png(*sides))
    with pytest.raises(ImageError, match=f"more than {MOST_PIXELS} pixels|a side may be at most 300 times"):
        READERS[reader](tmp_path / "a.png")


def test_strips(tmp_path: Path) -> None:
    for size, opens in (((300, 1), True), ((1, 300), True), ((301, 1), False), ((60_000, 1), False)):
        Image.new("L", size).save(tmp_path / "a.png")
        if opens:
            assert open_image(tmp_path / "a.png").size == size
            continue
        with pytest.raises(ImageError, match=rf"a\.png: an image of {size[0]} x 1 pixels; a side may be at most 300"):
            open_image(tmp_path / "a.png")
    transform = ModelTransform(timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1))
    with pytest.raises(ValueError, match="60000 x 1 pixels"):
        transform(torch.zeros(3, 1, 60_000, dtype=torch.uint8))


@pytest.mark.parametrize(
    "error", [struct.error, IndexError, OverflowError, MemoryError, KeyError, EOFError, RecursionError, zlib.error]
)
def test_whatever_a_decoder_raises_concerns_the_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def load(image: Image.Image) -> None:
        raise error("inside")

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(ImageError, match=r"a\.png: the image is damaged") as raised:
        open_image(tmp_path / "a.png")
    assert not is_of_the_machine(raised.value)


@pytest.mark.parametrize("error", [MemoryError, ValueError])
def test_what_cannot_be_converted_concerns_the_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def convert(image: Image.Image, mode: str) -> None:
        raise error("inside")

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "convert", convert)
    with pytest.raises(ImageError, match=r"a\.png: (too large for the memory|pixels of mode L)") as raised:
        open_image(tmp_path / "a.png")
    assert not is_of_the_machine(raised.value)
