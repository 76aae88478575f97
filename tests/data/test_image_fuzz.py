"""Images and masks of every mode and format, whole and damaged: read as they were written, or refused."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captum_astro.data.images import SUFFIXES, open_image
from captum_astro.data.masks import imagenet_s_mask, plain_mask, voc_mask
from captum_astro.data.tables import DataError
from tests.data.fuzzing import FORMATS, Case, damaged, written

SEED, HEIGHT, WIDTH = 7, 24, 32
PICTURES, MASKS = 180, 90  # of each format
LOSSY = {"JPEG": 8, "AVIF": 8}  # levels between what is written and what is read, on average
# what each writer keeps; anything else it converts before it writes, or refuses
KEPT = {
    "PNG": ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I", "I;16", "F"),
    "GIF": ("1", "L", "P"),
    "BMP": ("1", "L", "P", "RGB"),
    "PPM": ("1", "L", "RGB", "F", "I;16"),
    "JPEG": ("1", "L", "RGB"),
    "WEBP": ("1", "L", "P", "RGB", "RGBA", "LA"),
    "JPEG2000": ("L", "RGB", "RGBA", "LA"),
    "AVIF": ("1", "L", "P", "RGB"),
}
MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "I", "I;16", "I;16B", "F")


def _smooth(draw: random.Random, channels: int) -> np.ndarray:
    """``(H, W, channels)`` uint8 that reaches 0 and 255 and that lossy formats keep."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [draw.uniform(-1, 1) * y / HEIGHT + draw.uniform(0.1, 1) * x / WIDTH for _ in range(channels)]
    return np.dstack([((p - p.min()) / (p.max() - p.min()) * 255).round() for p in planes]).astype(np.uint8)


def _picture(draw: random.Random, form: str) -> Case:
    mode = draw.choice(MODES)
    grey = _smooth(draw, 1)[..., 0]
    rgb, options, kept = _smooth(draw, 3), {}, mode in KEPT[form]
    if mode in ("I", "I;16", "I;16B", "F"):
        black, white, kind = draw.choice(
            {"I": [(-500, 500, "i4"), (0, 10**6, "i4")], "F": [(0, 1, "f4"), (-30, 0, "f4"), (200, 300, "f4")]}.get(
                mode, [(0, 65535, "u2"), (0, 4095, "u2"), (0, 255, "u2")]
            )
        )
        values = (black + grey / 255 * (white - black)).astype(kind)
        shown = np.repeat(((values.astype(float) - black) / (white - black) * 255)[..., None], 3, 2)
        picture = Image.fromarray(values.astype(">u2") if mode == "I;16B" else values)
        kept |= mode == "I;16B" and form == "TIFF"
        return Case(picture, shown, {}, kept)
    picture = Image.fromarray(rgb)
    if mode == "P":
        picture = picture.quantize(draw.choice((2, 8, 16)))
    elif mode in ("RGBA", "LA"):
        alpha = Image.fromarray(_smooth(draw, 1)[..., 0] if form != "AVIF" else grey * 0 + 255)
        picture = picture.convert(mode)
        picture.putalpha(alpha)
    else:
        picture = picture.convert(mode)
    colours = np.asarray(picture.convert("RGBA" if mode in ("RGBA", "LA") else "RGB")).astype(float)
    shown = colours[..., :3]
    if mode in ("RGBA", "LA"):
        opaque = colours[..., 3:] / 255
        shown = shown * opaque + 255 * (1 - opaque)
    if form == "PNG" and mode in ("L", "P", "RGB") and draw.random() < 0.5:
        value = picture.getpixel((draw.randrange(WIDTH), draw.randrange(HEIGHT)))
        clear = np.asarray(picture) == value
        options["transparency"] = value
        shown = np.where((clear.all(-1) if clear.ndim == 3 else clear)[..., None], 255, shown)
    return Case(picture, shown, options, kept)


def _mask(draw: random.Random, form: str) -> Case:
    """Blocks of object, and maybe unknown ones, in a form in which a program could write them."""
    mask = np.zeros((HEIGHT, WIDTH), np.int8)
    for value in draw.choice(((1,), (1,), (1, -1), ())):
        top, left = draw.randrange(HEIGHT - 8), draw.randrange(WIDTH - 8)
        mask[top : top + draw.randrange(1, 9), left : left + draw.randrange(1, 9)] = value
    grey = np.array([0, 255, 128], np.uint8)[mask]
    kind = draw.choice(("L", "RGB", "1", "01", "quantised", "P", "palette", "opaque", "alpha", "16", "S", "CMYK"))
    if kind in ("1", "01", "S") or (kind in ("quantised", "P") and draw.random() < 0.5):
        mask[mask < 0] = 0
        grey[grey == 128] = 0
    options: dict[str, Any] = {}
    if kind == "palette":  # in any order, and 0 may or may not be the background
        order = draw.sample(range(255), 2)
        order[0] = draw.choice((0, order[0]))
        picture = Image.fromarray(np.array([*order, 255], np.uint8)[mask])
        colours = [draw.randrange(256) for _ in range(768)]
        colours[3 * order[0] : 3 * order[0] + 3] = (0, 0, 0)
        picture.putpalette(colours)
    elif kind == "01":
        picture = Image.fromarray(mask.astype(np.uint8))
    elif kind == "16":
        picture = Image.fromarray(grey.astype(np.uint16) * draw.choice((1, 257)))
    elif kind == "S":
        number = np.where(mask == 1, draw.randrange(1, 920), 0)
        picture = Image.fromarray(np.dstack([number % 256, number // 256, 0 * number]).astype(np.uint8))
    elif kind in ("opaque", "alpha"):
        alpha = grey if kind == "alpha" else grey * 0 + 255
        colour = draw.choice((grey, grey * 0 + 255)) if kind == "alpha" else grey
        picture = Image.fromarray(np.dstack([colour, colour, colour, alpha]))
    elif kind == "quantised":
        picture = Image.fromarray(grey).quantize(draw.choice((3, 256)))
    else:
        picture = Image.fromarray(grey).convert(kind)
    if form == "PNG" and picture.mode in ("L", "P") and draw.random() < 0.2:
        options["transparency"] = 0
    deep, clear = ("PNG", "TIFF", "JPEG2000"), ("PNG", "TIFF", "WEBP", "AVIF")
    kept = form in {"16": deep, "alpha": clear}.get(kind, tuple(FORMATS))
    return Case(picture, mask, options, kept)


def _outcome(path: Path, read: Callable[[Path], Any]) -> Any:
    """What is read, or None if it is refused with the file's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(path)
        except DataError as error:
            message = str(error)
    assert message.startswith(f"{path}: ")
    return None


def _told(form: str, path: Path, case: Case) -> str:
    return f"seed {SEED}, {form}, {path.name}: {case.picture.mode}, {case.options}, turned {case.turned}"


@pytest.mark.parametrize("form", FORMATS)
def test_pictures(tmp_path: Path, form: str) -> None:
    draw, outcomes = random.Random(f"{SEED} {form}"), Counter[str]()
    while outcomes.total() < PICTURES:
        whole = written(draw, form, _picture(draw, form))
        if whole is None:
            continue
        (data, changed), case = damaged(draw, whole[0]), whole[1]
        path = tmp_path / f"{outcomes.total()}{draw.choice(sorted(SUFFIXES))}"
        path.write_bytes(data)
        name = (
            f"seed {SEED}, {form}, number {outcomes.total()}: {case.picture.mode}, {case.options}, turned {case.turned}"
        )
        found = _outcome(path, open_image)
        outcomes["refused" if found is None else "changed" if changed else "shown"] += 1
        if found is None:
            assert changed or data != whole[0] or not case.kept, name
            continue
        assert found.mode == "RGB", name
        if not changed and case.kept:
            assert found.size == case.shown.shape[1::-1], name
            far = np.abs(np.asarray(found) - case.shown)
            assert far.mean() < LOSSY.get(form, 1), name
            assert form in LOSSY or far.max() <= 2, name
    print(f"seed {SEED}: {dict(outcomes)}")
    assert outcomes["shown"] > PICTURES / 6
    assert outcomes["refused"] > PICTURES / 20


@pytest.mark.parametrize("form", FORMATS)
def test_masks(tmp_path: Path, form: str) -> None:
    draw, outcomes = random.Random(f"{SEED} {form}"), Counter[str]()
    while outcomes.total() < MASKS:
        whole = written(draw, form, _mask(draw, form))
        if whole is None:
            continue
        (data, changed), case = damaged(draw, whole[0]), whole[1]
        path = tmp_path / f"{outcomes.total()}{draw.choice(sorted(SUFFIXES))}"
        path.write_bytes(data)
        for read in (plain_mask, voc_mask, imagenet_s_mask):
            name = f"{read.__name__}, {_told(form, path, case)}"
            found = _outcome(path, read)
            outcomes["refused" if found is None else "changed" if changed else "read"] += 1
            if found is None:
                continue
            assert found.dtype == torch.int8, name
            assert set(found.unique().tolist()) <= {-1, 0, 1}, name
            if not changed and case.kept and (read is plain_mask or case.turned == 1):
                assert np.array_equal(found.numpy(), case.shown), name
    print(f"seed {SEED}: {dict(outcomes)}")
    assert outcomes["refused"] > MASKS / 20
    assert (outcomes["read"] > MASKS / 20) == (form in ("PNG", "TIFF", "GIF", "BMP", "PPM"))  # the others blur
