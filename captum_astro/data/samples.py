"""Samples of the benchmark: images with their annotations, accessible by index."""

from __future__ import annotations

import hashlib
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import Dataset

from captum_astro.data.human import HumanSample


class Sample(NamedTuple):
    """One image and its annotations; None for anything unknown.

    Attributes:
        image: ``(3, H, W)`` uint8.
        label: The class.
        mask: ``(H, W)`` int8: 1 the object, 0 the background, -1 unknown and ignored.
        human: ``(h, w)`` float32 human attention map, as in `HumanSample`.
        name: Unique in its dataset.
    """

    image: torch.Tensor
    label: int | None
    mask: torch.Tensor | None
    human: torch.Tensor | None
    name: str


class Samples(Protocol):
    """A dataset of samples: it has a length, and samples can be read in any order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class HumanDataset(Protocol):
    """Human samples by index, such as `Boxes` and `HumanScenes`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> HumanSample: ...


class HumanSamples(Dataset[Sample]):
    """Human samples whose map is also the object's mask: drawn boxes, and the scenes' digits.

    Args:
        dataset: Maps with the size of the images; values above 0 are the object.

    Example:
        >>> from captum_astro.data.scenes import HumanScenes, Scenes
        >>> sample = HumanSamples(HumanScenes(Scenes("test", 2)))[1]
        >>> sample.name, sample.image.dtype, sample.mask.dtype, sample.mask.unique().tolist()
        ('scene 1', torch.uint8, torch.int8, [0, 1])
    """

    def __init__(self, dataset: HumanDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        image, human, label, name = self._dataset[index]
        return Sample(image, label, (human > 0).to(torch.int8), human, name)


def sample_digest(sample: Sample | HumanSample) -> str:
    """A short digest of everything in a sample."""
    found = hashlib.sha256(f"{plain_text(sample.name)} {sample.label} {tuple(sample.image.shape)}".encode())
    for tensor in (sample.image, getattr(sample, "mask", None), sample.human):
        found.update(b"-" if tensor is None else tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def plain_text(text: str) -> str:
    """Printable text: a file name may contain bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def checked(index: int, count: int) -> int:
    """Validate the index of a sample.

    Raises:
        IndexError: If there is no such sample.
    """
    if not 0 <= index < count:
        raise IndexError(f"There are {count} images, numbered from 0, but index {index} was requested.")
    return index
