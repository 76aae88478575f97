"""CIFAR-10 and CIFAR-100, from torchvision's folders or from parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from captum_astro.data._plain_pickle import Call, read_plain
from captum_astro.data.files import DataError, read_whole
from captum_astro.data.images import open_encoded
from captum_astro.data.registry import register_data
from captum_astro.data.samples import Sample, checked
from captum_astro.data.tables import labels, parquet_files, read_columns

Split = Literal["train", "test"]
_SIDE = 32
_BYTES = 3 * _SIDE**2
_FOLDERS = {10: "cifar-10-batches-py", 100: "cifar-100-python"}
_BATCH_LABELS = {10: "labels", 100: "fine_labels"}
_LABELS = {10: ("label", "labels"), 100: ("fine_label", "fine_labels")}
_BATCHES = {
    (10, "train"): tuple(f"data_batch_{number}" for number in range(1, 6)),
    (10, "test"): ("test_batch",),
    (100, "train"): ("train",),
    (100, "test"): ("test",),
}
# what a pickle of an array mentions, in old and new versions of NumPy
_RECONSTRUCT = frozenset({"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"})
_FROM_BUFFER = frozenset({"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"})
_NAMES = _RECONSTRUCT | _FROM_BUFFER | {"numpy.ndarray", "numpy.dtype", "_codecs.encode"}


@dataclass(frozen=True)
class LabelledImages:
    """Images and classes in memory.

    Attributes:
        images: ``(N, 3, 32, 32)`` uint8.
        labels: Long ``(N,)``.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


def read_cifar(path: Path | str, split: Split, classes: Literal[10, 100] = 10) -> LabelledImages:
    """All images of a split, decoded once.

    Args:
        path: The folder that contains torchvision's ``cifar-10-batches-py`` or ``cifar-100-python``, or that folder; or
            a folder of parquet files, or one of them, the split's own or the training one: columns ``img`` or ``image``
            (encoded images) and ``label`` (``fine_label`` for CIFAR-100).
        split: ``"train"`` or ``"test"``.
        classes: 10 or 100.

    Raises:
        DataError: If no such data is found, a file is damaged, or a row has no 32 x 32 image or no class.
    """
    images, found = _read(Path(path), split, classes)
    if isinstance(images, _Encoded):
        images = torch.stack([images[index] for index in range(len(images))])
    return LabelledImages(images, torch.tensor(found))


class _Encoded:
    """Images in the cells of a table, each decoded when it is requested."""

    def __init__(self, cells: list[Any], places: list[str]) -> None:
        self._cells, self._places = cells, places

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, index: int) -> torch.Tensor:
        cell, place = self._cells[index], self._places[index]
        image = open_encoded(cell.get("bytes") if isinstance(cell, dict) else cell, place)
        if image.size != (_SIDE, _SIDE):
            raise DataError(f"{place}: an image of {image.width} x {image.height} pixels, not {_SIDE} x {_SIDE}.")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


_Images = torch.Tensor | _Encoded


class CifarSamples(Dataset[Sample]):
    """The test images of CIFAR, as samples.

    Args:
        path: As in `read_cifar`.
        classes: 10 or 100.

    Raises:
        DataError: As `read_cifar`; for a damaged image in a parquet file, when that sample is read.
    """

    def __init__(self, path: Path | str, classes: Literal[10, 100] = 10) -> None:
        self._images, self._labels = _read(Path(path), "test", classes)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        image = self._images[checked(index, len(self))]
        return Sample(image, self._labels[index], None, None, f"test {index}")


@register_data("cifar10", place="PATH")
def _cifar10(path: Path) -> CifarSamples:
    return CifarSamples(path, 10)


@register_data("cifar100", place="PATH")
def _cifar100(path: Path) -> CifarSamples:
    return CifarSamples(path, 100)


def _read(path: Path, split: Split, classes: int) -> tuple[_Images, list[int]]:
    """Images and classes; those in parquet files are not yet decoded."""
    for folder in (path / _FOLDERS[classes], path):
        if (folder / _BATCHES[classes, split][0]).is_file():
            return _from_batches([folder / name for name in _BATCHES[classes, split]], classes)
    if path.is_dir() and not any(path.rglob("*.parquet")):
        raise DataError(f"{path}: neither {_FOLDERS[classes]} nor parquet files in this folder.")
    files = parquet_files(path, split, f"cifar{classes}")
    values, places = read_columns(files, {"image": ("img", "image"), "label": _LABELS[classes]})
    return _Encoded(values["image"], places), labels(values["label"], places, classes)


def _from_batches(files: list[Path], classes: int) -> tuple[torch.Tensor, list[int]]:
    images: list[np.ndarray] = []
    found: list[int] = []
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: there is no such file, though others of the set are there.")
        try:
            pixels, given = _batch(read_whole(file), _BATCH_LABELS[classes])
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{file}: not a batch of CIFAR-{classes}, or damaged ({str(error)[:200]}).") from error
        if len(given) != len(pixels):
            raise DataError(f"{file}: {len(pixels)} images and {len(given)} labels.")
        found += labels(given, [f"{file}, image {i}" for i in range(len(given))], classes)
        images.append(pixels)
    return torch.from_numpy(np.concatenate(images)), found


def _batch(data: bytes, label: str) -> tuple[np.ndarray, list[Any]]:
    """The pixels ``(N, 3, 32, 32)`` and the labels of one file, which are not checked."""
    batch = read_plain(data, _NAMES)
    if not isinstance(batch, dict):
        raise ValueError("it is not a dictionary")
    missing = [key for key in ("data", label) if key not in batch]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}, only {', '.join(batch)}")
    if not isinstance(batch[label], list):
        raise ValueError(f"its {label} are not a list")
    return _pixels(batch["data"]), batch[label]


def _pixels(value: Any) -> np.ndarray:
    """``(N, 3, 32, 32)``, from the calls with which NumPy pickles an array of uint8."""
    order: Literal["C", "F"]
    match value:
        case Call(name, _, (1, shape, Call("numpy.dtype", ("u1", *_)), bool(fortran), raw)) if name in _RECONSTRUCT:
            order = "F" if fortran else "C"
        case Call(name, (raw, Call("numpy.dtype", ("u1", *_)), shape, "C" | "F" as given)) if name in _FROM_BUFFER:
            order = given
        case _:
            raise ValueError("its data is not an array of uint8")
    match raw:
        case Call("_codecs.encode", (str(text), "latin1")) | str(text):  # protocol 2 has no bytes
            raw = text.encode("latin-1")
    if not isinstance(raw, (bytes, bytearray)) or shape != (len(raw) // _BYTES, _BYTES):
        raise ValueError(f"its data is not (N, {_BYTES})")
    if not raw or len(raw) % _BYTES:
        raise ValueError(f"its data has {len(raw)} bytes, for images of {_BYTES} each")
    rows: np.ndarray = np.frombuffer(raw, np.uint8).reshape((-1, _BYTES), order=order)
    return rows.reshape(-1, 3, _SIDE, _SIDE)
