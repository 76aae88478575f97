"""What the benchmark takes: images with what is known of them, each to be had by its number."""

from __future__ import annotations

import hashlib
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import Dataset

from captum_astro.data.human import HumanSample


class Sample(NamedTuple):
    """One image and what is known of it; None is what is not known.

    Attributes:
        image: ``(3, H, W)`` uint8.
        label: The class.
        mask: ``(H, W)`` int8: 1 the object, 0 the background, -1 unknown and not to be counted.
        human: ``(h, w)`` float32 where people looked, as `HumanSample` has it.
        name: Unique in its dataset.
    """

    image: torch.Tensor
    label: int | None
    mask: torch.Tensor | None
    human: torch.Tensor | None
    name: str


class Samples(Protocol):
    """A dataset of samples: it has a length, and any sample can be read at any time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class HumanDataset(Protocol):
    """Human samples by number, as `Boxes` and `HumanScenes` are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> HumanSample: ...


class HumanSamples(Dataset[Sample]):
    """Human samples whose map is also the object's mask: drawn boxes, and the scenes' digits.

    Args:
        dataset: Maps of the images' own size; what is above 0 is the object.

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
    """A short name of all that a sample holds."""
    found = hashlib.sha256(f"{plain_text(sample.name)} {sample.label} {tuple(sample.image.shape)}".encode())
    for tensor in (sample.image, getattr(sample, "mask", None), sample.human):
        found.update(b"-" if tensor is None else tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def plain_text(text: str) -> str:
    """Text that can be written: the name of a file may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def checked(index: int, count: int) -> int:
    """The number of a sample.

    Raises:
        IndexError: If there is none of that number.
    """
    if not 0 <= index < count:
        raise IndexError(f"There are {count} images, numbered from 0; {index} was asked for.")
    return index
