"""Datasets by a word on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import cast

from torch.utils.data import Dataset, Subset

from captum_astro.data.boxes import Boxes
from captum_astro.data.cifar import CifarSamples
from captum_astro.data.clickme import ClickMe
from captum_astro.data.clickme_samples import ClickMeSamples
from captum_astro.data.human import HumanSample
from captum_astro.data.imagenet import ImageNetValidation
from captum_astro.data.imagenet_segmentation import ImageNetSegmentation
from captum_astro.data.labelled_folder import LabelledFolder
from captum_astro.data.mask_folders import MaskFolder
from captum_astro.data.samples import HumanSamples, Sample, Samples
from captum_astro.data.scenes import HumanScenes, Scenes

HUMAN = "scenes, clickme:PATH or boxes:FOLDER"
DATA = (
    "scenes, boxes:FOLDER, folder:FOLDER, imagenet:FOLDER, imagenet-segmentation:FILE, cifar10:PATH, cifar100:PATH, "
    "masks:FOLDER or clickme:PATH"
)
_SCENES = 500
_READERS: dict[str, Callable[[Path], Samples]] = {
    "boxes": lambda path: HumanSamples(Boxes(path)),
    "folder": LabelledFolder,
    "imagenet": ImageNetValidation,
    "imagenet-segmentation": ImageNetSegmentation,
    "cifar10": lambda path: CifarSamples(path, 10),
    "cifar100": lambda path: CifarSamples(path, 100),
    "masks": MaskFolder,
}


def samples(spec: str, limit: int | None = None) -> Samples:
    """A dataset for the benchmark.

    Each form is described on the page of datasets. Reading is lazy; the order is always the same.

    Args:
        spec: ``scenes``, or a word and a path, as in ``imagenet:/data/val``. The words are ``boxes``, ``folder``,
            ``imagenet``, ``imagenet-segmentation``, ``cifar10``, ``cifar100``, ``masks`` and ``clickme``.
        limit: At most so many samples; for scenes 500 if it is not given. The first ones; but where classes follow
            each other (ImageNet and ImageNet-S in folders of classes), evenly spread over all.

    Raises:
        ValueError: If the word is none of these, or ``limit`` is less than 1; and as the dataset says (DataError).
        FileNotFoundError: As the dataset says.

    Example:
        >>> data = samples("scenes", limit=3)
        >>> len(data), data[2].name, data[2].image.shape
        (3, 'scene 2', torch.Size([3, 64, 64]))
    """
    if limit is not None and limit < 1:
        raise ValueError(f"At least 1 sample, not {limit}.")
    word, _, path = spec.partition(":")
    if word == "scenes" and not path:
        return HumanSamples(HumanScenes(Scenes("test", limit or _SCENES)))
    if word == "clickme" and path:
        return ClickMeSamples(Path(path), limit)
    if word not in _READERS or not path:
        raise ValueError(f"--data is {DATA}, not {spec!r}.")
    dataset = _READERS[word](Path(path))
    count = len(dataset)
    if limit is None or limit >= count:
        return dataset
    spread = getattr(dataset, "by_class", False)
    chosen = [i * count // limit for i in range(limit)] if spread else range(limit)
    return Subset(cast(Dataset[Sample], dataset), chosen)


def human_samples(spec: str, limit: int | None = None) -> Iterable[HumanSample]:
    """Images with human maps.

    Args:
        spec: ``scenes``; ``clickme:PATH``, in any form that `ClickMe` reads; or ``boxes:FOLDER``, with a ``boxes.csv``.
        limit: At most so many samples; for scenes 500 if it is not given.

    Raises:
        ValueError: If the word is none of these.

    Example:
        >>> len(list(human_samples("scenes", limit=3)))
        3
    """
    word, _, path = spec.partition(":")
    if word == "scenes" and not path:
        scenes = HumanScenes(Scenes("test", _SCENES if limit is None else limit))
        return (scenes[index] for index in range(len(scenes)))
    if word == "clickme" and path:
        return islice(ClickMe(Path(path)), limit)
    if word == "boxes" and path:
        boxes = Boxes(Path(path))
        return (boxes[index] for index in range(len(boxes) if limit is None else min(limit, len(boxes))))
    raise ValueError(f"--data is {HUMAN}, not {spec!r}.")
