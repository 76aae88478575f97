from __future__ import annotations

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
