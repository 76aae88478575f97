from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_astro.data.images import ImageError
from captum_astro.data.mask_folders import MaskFolder
from captum_astro.data.tables import DataError


def _picture(file: Path, values: np.ndarray, exif: Image.Exif | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file, **({"exif": exif} if exif else {}))


def _colour(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, dtype=np.uint8)


def _voc(folder: Path, *stems: str) -> None:
    for width, stem in enumerate(stems, start=5):
        _picture(folder / "JPEGImages" / f"{stem}.jpg", _colour(4, width))
        classes = np.zeros((4, width), dtype=np.uint8)
        classes[0, :3] = (15, 255, 1)
        palette = Image.fromarray(classes).convert("L")
        shown = Image.new("P", palette.size)
        shown.putdata(classes.ravel().tolist())
        shown.putpalette([i % 256 for i in range(768)])
        file = folder / "SegmentationClass" / f"{stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        shown.save(file)


def test_voc(tmp_path: Path) -> None:
    _voc(tmp_path, "2007_000033", "2007_000042", "2008_000001")
    data = MaskFolder(tmp_path)
    assert [sample.name for sample in data] == ["2007_000033.jpg", "2007_000042.jpg", "2008_000001.jpg"]
    listed = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("2008_000001\n2007_000033\n")
    _picture(tmp_path / "JPEGImages" / "unmasked.jpg", _colour(4, 4))
    data = MaskFolder(tmp_path)
    assert [sample.name for sample in data] == ["2008_000001.jpg", "2007_000033.jpg"]
    sample = data[0]
    assert (sample.label, sample.image.shape, sample.mask.shape) == (None, (3, 4, 7), (4, 7))
    assert sample.mask[0, :4].tolist() == [1, -1, 1, 0]
    assert not sample.mask[1:].any()
    assert not data.by_class
    assert pickle.loads(pickle.dumps(data))[1].name == "2007_000033.jpg"
    listed.write_text("2009_000009\n")
    with pytest.raises(DataError, match=re.escape("no file 2009_000009.* here")):
        MaskFolder(tmp_path)


def test_imagenet_s(tmp_path: Path) -> None:
    for wnid, number, identity in (("n15075141", 3, 919), ("n01440764", 9, 1), ("n01440764", 2, 1000)):
        name = f"{wnid}/ILSVRC2012_val_{number:08d}"
        _picture(tmp_path / "validation" / f"{name}.JPEG", _colour(5, 6))
        mask = np.zeros((5, 6, 3), dtype=np.uint8)
        mask[1, 2] = (identity % 256, identity // 256, 0)
        _picture(tmp_path / "validation-segmentation" / f"{name}.png", mask)
    data = MaskFolder(tmp_path)
    found = [(s.name, s.label, int(s.mask[1, 2]), int(s.mask.abs().sum())) for s in data]
    assert found == [
        ("n01440764/ILSVRC2012_val_00000002.JPEG", 0, -1, 1),
        ("n01440764/ILSVRC2012_val_00000009.JPEG", 0, 1, 1),
        ("n15075141/ILSVRC2012_val_00000003.JPEG", 999, 1, 1),
    ]
    assert data.by_class
    (tmp_path / "validation" / "n15075141" / "ILSVRC2012_val_00000003.JPEG").unlink()
    with pytest.raises(DataError, match=r"no file ILSVRC2012_val_00000003\.\* here"):
        MaskFolder(tmp_path)


def test_plain(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 9 x 4, shown 4 x 9
    _picture(tmp_path / "images" / "b.jpg", _colour(4, 9), exif)
    _picture(tmp_path / "masks" / "b.png", np.full((9, 4), 255, dtype=np.uint8))
    _picture(tmp_path / "images" / "a.png", _colour(3, 3))
    _picture(tmp_path / "masks" / "a.png", np.array([[0, 128, 255]] * 3, dtype=np.uint8))
    data = MaskFolder(tmp_path)
    assert [sample.name for sample in data] == ["a.png", "b.jpg"]
    assert data[0].mask.tolist() == [[0, -1, 1]] * 3
    assert data[1].image.shape == (3, 9, 4)
    assert data[1].mask.all()


def test_invalid_options(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        MaskFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"none of the forms with masks \(VOC: JPEGImages and SegmentationClass;"):
        MaskFolder(tmp_path)
    for inside in ("images", "masks"):
        (tmp_path / inside).mkdir()
    with pytest.raises(DataError, match="no masks here"):
        MaskFolder(tmp_path)
    _picture(tmp_path / "images" / "a.jpg", _colour(4, 4))
    with pytest.raises(DataError, match=r"masks: no file a\.\* here"):
        MaskFolder(tmp_path)
    _picture(tmp_path / "masks" / "a.png", np.zeros((4, 5), dtype=np.uint8))
    data = MaskFolder(tmp_path)
    with pytest.raises(DataError, match=r"masks/a\.png: 5 x 4 pixels, and its image has 4 x 4"):
        data[0]
    (tmp_path / "images" / "a.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(ImageError, match=r"images/a\.jpg"):
        data[0]
    _picture(tmp_path / "images" / "a.png", _colour(4, 4))
    with pytest.raises(DataError, match=r"a\.jpg and a\.png have one stem"):
        MaskFolder(tmp_path)
