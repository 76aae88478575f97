from __future__ import annotations

import io
import time
import warnings
from pathlib import Path

import pytest
from PIL import Image

from captum_astro.data.image_error import ImageError
from captum_astro.data.images import open_image
from captum_astro.data.jpeg import scans


def _jpeg(side: int, *, progressive: bool, **options: object) -> bytes:
    file = io.BytesIO()
    picture = Image.effect_noise((side, side), 50).convert("RGB")
    picture.save(file, "JPEG", progressive=progressive, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (_jpeg(64, progressive=False), 1),
        (_jpeg(64, progressive=True), 10),
        (_jpeg(64, progressive=False, restart_marker_blocks=2), 1),
        (_jpeg(64, progressive=False, comment=b"\xff\xda" * 50), 1),  # in a segment
        (_jpeg(64, progressive=True) + b"\xff\xda" * 50, 10),  # after the picture, as a film in a photograph
        (_jpeg(64, progressive=True)[:-2], 10),
        (b"\xff\xd8\xff", 0),
        (b"", 0),
    ],
)
def test_scans_are_those_of_the_picture(data: bytes, count: int) -> None:
    assert scans(data) == count


def test_a_small_jpeg_that_would_take_hours(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (4000, 4000), 128).save(file, "JPEG", progressive=True)
    data, more = file.getvalue(), 20_000
    last = data[data.rfind(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(data[:-2] + last * more + data[-2:])
    assert (tmp_path / "a.jpg").stat().st_size < 1 << 20
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"a\.jpg: a JPEG of 20006 scans, which would take hours\. Save the image"):
        open_image(tmp_path / "a.jpg")
    assert time.monotonic() - start < 20


def test_a_photograph_with_the_usual_scans(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 3000), "red").save(tmp_path / "a.jpg", progressive=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(tmp_path / "a.jpg").size == (4000, 3000)
