from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from captum_astro.data.image_error import ImageError
from captum_astro.data.imagenet import files_of_classes
from captum_astro.data.images import SUFFIXES, find_images, image_names, open_image
from captum_astro.data.mask_folders import MaskFolder

RED = np.zeros((4, 6, 3), dtype=np.uint8)
RED[..., 0] = 200


def _saved(path: Path, image: Image.Image, **kwargs: object) -> np.ndarray:
    image.save(path, **kwargs)
    opened = open_image(path)
    assert opened.mode == "RGB"
    return np.asarray(opened)


def test_modes(tmp_path: Path) -> None:
    rgb = Image.fromarray(RED)
    assert np.array_equal(_saved(tmp_path / "a.png", rgb), RED)
    assert np.abs(_saved(tmp_path / "p.png", rgb.quantize(4)).astype(int) - RED).max() < 3
    assert np.abs(_saved(tmp_path / "c.jpg", rgb.convert("CMYK"), quality=100).astype(int) - RED).max() < 8
    grey = _saved(tmp_path / "g.png", rgb.convert("L"))
    assert grey.std() == 0
    deep = np.full((4, 6), 32768, dtype=np.uint16)
    assert set(np.unique(_saved(tmp_path / "d.png", Image.fromarray(deep)))) == {128}
    assert set(np.unique(_saved(tmp_path / "f.tiff", Image.fromarray(np.full((4, 6), 0.5, np.float32))))) == {128}
    clear = rgb.convert("RGBA")
    clear.putalpha(0)
    assert set(np.unique(_saved(tmp_path / "t.png", clear))) == {255}
    palette = rgb.quantize(4)
    assert set(np.unique(_saved(tmp_path / "tp.png", palette, transparency=palette.getpixel((0, 0))))) == {255}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_camera_rotation(tmp_path: Path, mode: str, suffix: str) -> None:
    stored = np.zeros((4, 6), np.uint8)
    stored[0] = 255  # the top row, shown as the right column
    picture = Image.fromarray(stored).convert(mode)
    if mode == "I;16":
        picture = Image.fromarray(stored.astype(np.uint16) * 257)
        suffix = {"jpg": "png", "webp": "tif"}.get(suffix, suffix)  # which hold 16 bits
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / f"r.{suffix}", exif=exif)
    shown = np.asarray(open_image(tmp_path / f"r.{suffix}"))
    assert shown.shape == (6, 4, 3)
    assert shown[:, 3].min() > 200
    assert shown[:, 0].max() < 50
    if suffix != "tif":
        assert open_image(tmp_path / f"r.{suffix}", upright=False).size == (6, 4)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.jpg: not an image"):
        open_image(tmp_path / "text.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"cut\.png: the image is damaged or cut short"):
        open_image(tmp_path / "cut.png")
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / "none.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no image in this folder"):
        find_images([tmp_path / "empty"])
    assert [p.name for p in find_images([tmp_path])] == ["cut.png", "text.jpg", "x.png"]


def test_suffixes_are_those_that_can_be_opened() -> None:
    always = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
    assert always <= SUFFIXES
    assert (".avif" in SUFFIXES) == bool(features.check("avif"))
    assert (".webp" in SUFFIXES) == bool(features.check("webp"))
    assert (".jp2" in SUFFIXES) == bool(features.check("jpg_2000"))
    assert not SUFFIXES & {".eps", ".ps", ".pdf", ".wmf", ".mpg"}


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_folders_take_images_but_no_hidden_files(tmp_path: Path, suffix: str) -> None:
    wnid = "n01440764"
    for folder in ("images", "masks", wnid):
        (tmp_path / folder).mkdir()
        for name in (f"a{suffix}", f"B{suffix.upper()}", f"._a{suffix}", f".hidden{suffix}", f"a{suffix}.txt"):
            (tmp_path / folder / name).touch()
        (tmp_path / folder / f"folder{suffix}").mkdir()
    wanted = [f"B{suffix.upper()}", f"a{suffix}"]
    assert [path.name for path in find_images([tmp_path / "images"])] == wanted
    assert image_names(tmp_path / "images") == wanted
    assert files_of_classes(tmp_path) == {wnid: wanted}
    assert len(MaskFolder(tmp_path)) == 2


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".mpo"}))
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    mode = {".pgm": "L", ".pbm": "1", ".pfm": "F"}.get(suffix, "RGB")
    Image.new(mode, (32, 24)).save(tmp_path / f"a{suffix}")
    assert np.asarray(open_image(tmp_path / f"a{suffix}")).max() == 0
