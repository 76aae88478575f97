"""A damaged image costs its own sample, whichever reader it comes from."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
from PIL import Image

from captum_astro.data.specs import samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.cases import load_cases


def _encoded(mode: str = "RGB", size: tuple[int, int] = (32, 32), form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(file, form)
    return file.getvalue()


GOOD = _encoded()
BAD = {
    "cut short": GOOD[: len(GOOD) // 2],
    "a bomb": GOOD[:16] + b"\x00\x00\xff\xff" * 2 + GOOD[24:],
    "a strip": _encoded(size=(60_000, 1)),
    "no image": b"\x89PNG text",
    "an infinite grey": b"Pf\n32 32\n-1.0\n" + np.full((32, 32), np.inf, "<f4").tobytes(),
    "empty": b"",
}


def _table(folder: Path, images: list[bytes]) -> str:
    for index, data in enumerate(images):
        (folder / f"{index}.png").write_bytes(data)
    lines = [f"{index}.png,{index},0,0,9,9" for index in range(len(images))]
    (folder / "labels.csv").write_text("\n".join(["file,label,x0,y0,x1,y1", *lines]))
    (folder / "boxes.csv").write_text((folder / "labels.csv").read_text())
    return f"folder:{folder}"


def _boxes(folder: Path, images: list[bytes]) -> str:
    return _table(folder, images).replace("folder:", "boxes:")


def _imagenet(folder: Path, images: list[bytes]) -> str:
    (folder / "n01440764").mkdir()
    for index, data in enumerate(images):
        (folder / "n01440764" / f"{index}.png").write_bytes(data)
    return f"imagenet:{folder}"


def _masked(folder: Path, images: list[bytes], masks: list[bytes]) -> str:
    for inside, written in (("images", images), ("masks", masks)):
        (folder / inside).mkdir()
        for index, data in enumerate(written):
            (folder / inside / f"{index}.png").write_bytes(data)
    return f"masks:{folder}"


def _images_with_masks(folder: Path, images: list[bytes]) -> str:
    return _masked(folder, images, [_encoded("1")] * len(images))


def _masks_with_images(folder: Path, images: list[bytes]) -> str:
    return _masked(folder, [GOOD] * len(images), [_encoded("1") if data is GOOD else data for data in images])


def _cifar(folder: Path, images: list[bytes]) -> str:
    rows = {"img": [{"bytes": data} for data in images], "label": [0] * len(images)}
    pd.DataFrame(rows).to_parquet(folder / "cifar10_test.parquet")
    return f"cifar10:{folder}"


def _hub(folder: Path, images: list[bytes]) -> str:
    rows = {"image": [{"bytes": data, "path": None} for data in images], "label": [0] * len(images)}
    pd.DataFrame(rows).to_parquet(folder / "test.parquet")
    return f"hf:{folder}"


def _clickme(folder: Path, images: list[bytes]) -> str:
    heatmap = io.BytesIO()
    np.save(heatmap, np.ones((32, 32), np.float32))
    with tarfile.open(folder / "val.tar", "w") as archive:
        for index, data in enumerate(images):
            for ending, part in (("png", data), ("heatmap.npy", heatmap.getvalue()), ("cls", b"1")):
                member = tarfile.TarInfo(f"{index}.{ending}")
                member.size = len(part)
                archive.addfile(member, io.BytesIO(part))
    return f"clickme:{folder}"


READERS = (_table, _boxes, _imagenet, _images_with_masks, _masks_with_images, _cifar, _hub, _clickme)


@pytest.fixture(scope="module")
def transform() -> ModelTransform:
    return ModelTransform(timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_others_are_read(
    tmp_path: Path, transform: ModelTransform, reader: Callable[[Path, list[bytes]], str], bad: str
) -> None:
    data = samples(reader(tmp_path, [GOOD, BAD[bad], GOOD]))
    cases, failed = load_cases(data, range(3), transform)
    assert [case.number for case in cases] == [0, 2]
    assert [one.number for one in failed] == [1]
    named = {"_cifar": "row 1", "_hub": "row 1", "_clickme": "val.tar:1"}.get(reader.__name__, "1.png")
    assert named in failed[0].failure.message
