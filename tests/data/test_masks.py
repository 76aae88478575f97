from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_astro.data.images import ImageError
from captum_astro.data.masks import imagenet_s_mask, plain_mask, voc_mask
from captum_astro.data.tables import DataError


def _palette(values: list[int], file: Path) -> Path:
    picture = Image.fromarray(np.array([values], dtype=np.uint8), "L")
    picture = picture.convert("L")
    shown = Image.new("P", picture.size)
    shown.putdata(values)
    shown.putpalette([(7 * i) % 256 for i in range(768)])
    shown.save(file)
    return file


def test_voc(tmp_path: Path) -> None:
    mask = voc_mask(_palette([0, 1, 20, 255], tmp_path / "a.png"))
    assert mask.tolist() == [[0, 1, 1, -1]]
    Image.new("RGB", (3, 2)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: colours \(RGB\)"):
        voc_mask(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("no")
    for read in (voc_mask, imagenet_s_mask, plain_mask):
        with pytest.raises(ImageError, match=r"c\.png"):
            read(tmp_path / "c.png")


def test_imagenet_s(tmp_path: Path) -> None:
    ids = np.array([0, 1, 255, 256, 919, 1000])
    colours = np.stack([ids % 256, ids // 256, 0 * ids], -1)[None].astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert imagenet_s_mask(tmp_path / "a.png").tolist() == [[0, 1, 1, 1, 1, -1]]
    Image.fromarray(colours + np.array([9, 0, 0], np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: a pixel of class 1009"):
        imagenet_s_mask(tmp_path / "b.png")
    Image.new("L", (3, 2)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"c\.png: mode L"):
        imagenet_s_mask(tmp_path / "c.png")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 255, 128], [0, 1, -1]), ([0, 1, 1], [0, 1, 1]), ([255, 255, 255], [1, 1, 1]), ([0, 0, 0], [0, 0, 0])],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_plain(tmp_path: Path, values: list[int], expected: list[int], mode: str) -> None:
    Image.fromarray(np.array([values], dtype=np.uint8)).convert(mode).save(tmp_path / "a.png")
    assert plain_mask(tmp_path / "a.png").tolist() == [expected]


def test_other_plain_masks(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(tmp_path / "one.png")
    assert plain_mask(tmp_path / "one.png").tolist() == [[0, 1]]
    assert plain_mask(_palette([0, 3, 255], tmp_path / "p.png")).tolist() == [[0, 1, -1]]
    for values in ([0, 1, 255], [0, 254], [7]):
        Image.fromarray(np.array([values], dtype=np.uint8)).save(tmp_path / "b.png")
        with pytest.raises(DataError, match=r"b\.png: pixels of "):
            plain_mask(tmp_path / "b.png")
    Image.new("RGB", (3, 2), (255, 0, 0)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"c\.png: colours"):
        plain_mask(tmp_path / "c.png")


MASK = np.zeros((40, 60), np.uint8)
MASK[5:15, 5:15] = 255
COLOURED = np.dstack([MASK, MASK * 0, MASK * 0])
VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128)]


def _indexed(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    shown = Image.fromarray(indices)
    shown.putpalette([channel for colour in colours for channel in colour])
    return shown


@pytest.mark.parametrize("suffix", ["png", "gif", "tif", "bmp"])
@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(MASK).quantize(2),
        Image.fromarray(MASK).convert("P"),
        _indexed(1 - MASK // 255, [(255, 255, 255), (0, 0, 0)]),
        _indexed(MASK // 255, [(0, 0, 0), (1, 1, 1)]),
        Image.fromarray(MASK).convert("1"),
        Image.fromarray(MASK // 255),
    ],
    ids=["quantised", "palette", "inverted palette", "0 and 1", "1 bit", "0 and 1 grey"],
)
def test_masks_of_greys(tmp_path: Path, picture: Image.Image, suffix: str) -> None:
    picture.save(tmp_path / f"a.{suffix}")
    assert np.array_equal(plain_mask(tmp_path / f"a.{suffix}").numpy(), MASK // 255)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif"])
@pytest.mark.parametrize(
    "picture", [_indexed(MASK // 255, [(0, 0, 0), (255, 0, 0)]), Image.fromarray(COLOURED).convert("P")]
)
def test_masks_of_classes(tmp_path: Path, picture: Image.Image, suffix: str) -> None:
    picture.save(tmp_path / f"a.{suffix}")
    for read in (plain_mask, voc_mask):
        if suffix == "gif":
            with pytest.raises(DataError, match=r"a\.gif: a GIF, in which programs renumber the classes"):
                read(tmp_path / "a.gif")
        else:
            assert np.array_equal(read(tmp_path / f"a.{suffix}").numpy(), MASK // 255)


def test_a_grey_class(tmp_path: Path) -> None:
    """VOC's palette shows class 7 in the grey of an unknown pixel, and a GIF keeps only the colours that occur."""
    bus = _indexed(MASK // 255 * 7, VOC)
    bus.save(tmp_path / "a.png")
    bus.save(tmp_path / "a.gif")
    assert np.array_equal(plain_mask(tmp_path / "a.png").numpy(), MASK // 255)
    with pytest.raises(DataError, match=r"a\.gif: a palette that shows 128, but no 255"):
        plain_mask(tmp_path / "a.gif")


@pytest.mark.parametrize("read", [voc_mask, plain_mask])
@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (_indexed(1 - MASK // 255, [(255, 0, 0), (0, 0, 0)]), "class 1 as dark as class 0, the background"),
        (_indexed(MASK // 255, [(255, 0, 0), (255, 255, 255)]), "class 0 in a colour, the background"),
        (_indexed(MASK // 255 * 9, VOC), "class 9 as dark as class 0"),  # not in the palette
        (Image.fromarray(MASK.astype(np.uint16)), r"greys of more than 8 bits \(I;16\)"),
    ],
    ids=["swapped", "coloured background", "short palette", "16 bits"],
)
def test_a_palette_that_shows_no_classes(
    tmp_path: Path, picture: Image.Image, message: str, read: Callable[[Path], object]
) -> None:
    picture.save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png: .*{message}"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("read", [voc_mask, plain_mask, imagenet_s_mask])
@pytest.mark.parametrize("form", ["alpha", "grey alpha", "palette", "grey", "RGB"])
def test_transparency_is_neither_object_nor_background(
    tmp_path: Path, form: str, read: Callable[[Path], object]
) -> None:
    white = np.full_like(MASK, 255)
    picture, options = {
        "alpha": (Image.fromarray(np.dstack([white, white, white, MASK])), {}),
        "grey alpha": (Image.fromarray(np.dstack([white, MASK])), {}),
        "palette": (_indexed(MASK // 255, VOC), {"transparency": 0}),
        "grey": (Image.fromarray(MASK), {"transparency": 0}),
        "RGB": (Image.fromarray(COLOURED), {"transparency": (0, 0, 0)}),
    }[form]
    picture.save(tmp_path / "a.png", **options)
    with pytest.raises(DataError, match=r"a\.png: 2300 pixels are transparent"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("picture", [Image.fromarray(MASK), Image.fromarray(MASK).quantize(2)])
def test_black_and_white_is_not_voc(tmp_path: Path, picture: Image.Image) -> None:
    picture.save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: black and white, where 255 would be VOC's unknown edge"):
        voc_mask(tmp_path / "a.png")


@pytest.mark.parametrize("read", [plain_mask, voc_mask, imagenet_s_mask])
@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
def test_formats_that_blur(tmp_path: Path, suffix: str, read: Callable[[Path], object]) -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[8:, 8:] = 1  # whole blocks of a JPEG, which keeps them: the values alone do not show it
    Image.fromarray(mask).convert("RGB" if read is imagenet_s_mask else "L").save(
        tmp_path / f"a.{suffix}", quality=100, compression="jpeg"
    )
    with pytest.raises(
        DataError, match=rf"a\.{suffix}: (JPEG|WEBP|a TIFF with jpeg in it), which blurs or moves the edges"
    ):
        read(tmp_path / f"a.{suffix}")
