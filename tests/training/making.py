"""Small data in common formats."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

GOOD, BAD = "a fine warm film , i liked it", "a dull cold film , i hated it"


def cifar_pixels(count: int, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Images whose class is the height of a bright band. ``(count, 32, 32, 3)`` uint8."""
    random = np.random.default_rng(seed)
    labels = [i % 10 for i in range(count)]
    images = random.integers(0, 80, (count, 32, 32, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 3] = 250
    return images, labels


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def cifar_parquet(folder: Path, train: int = 60, test: int = 20) -> Path:
    for split, count, seed in (("train", train, 0), ("test", test, 1)):
        images, labels = cifar_pixels(count, seed)
        rows = {"img": [{"bytes": png(image), "path": None} for image in images], "label": labels}
        pd.DataFrame(rows).to_parquet(folder / f"cifar10_{split}.parquet")
    return folder


def cifar_folder(folder: Path, a_batch: int = 4) -> Path:
    inside = folder / "cifar-10-batches-py"
    inside.mkdir()
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        images, labels = cifar_pixels(a_batch, number)
        rows = images.transpose(0, 3, 1, 2).reshape(a_batch, -1)
        (inside / name).write_bytes(pickle.dumps({b"data": rows, b"labels": labels}, protocol=2))
    return folder


def imdb_parquet(folder: Path, train: int = 40, test: int = 10) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        labels = [i % 2 for i in range(count)]
        texts = [" ".join([GOOD if label else BAD] * int(random.integers(1, 4))) for label in labels]
        pd.DataFrame({"text": texts, "label": labels}).to_parquet(folder / f"imdb_{split}.parquet")
    return folder


def wikitext(folder: Path, lines: int = 60) -> Path:
    for split in ("valid", "test"):
        text = "".join(f" the <unk> number {i % 7} is known .\n \n" for i in range(lines))
        (folder / f"wikitext2_{split}.txt").write_text(text)
    return folder
