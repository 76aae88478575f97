"""Scenes with a known object: one handwritten digit among strokes that are not digits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.utils.data import Dataset

from captum_astro.data.human import HumanSample
from captum_astro.data.registry import register_data
from captum_astro.data.samples import HumanSamples

SIZE = 64
_SCENES = 500
_DRAW = 2  # strokes are drawn at twice the size, then reduced, which smooths their edges


class Scene(NamedTuple):
    """One scene: ``image`` ``(3, 64, 64)`` float in [0, 1], ``label`` 0 to 9, ``mask`` ``(64, 64)`` bool."""

    image: torch.Tensor
    label: int
    mask: torch.Tensor


class Scenes(Dataset[Scene]):
    """Handwritten digits on 64 x 64 textured backgrounds, with the digit's own pixels as the mask.

    The digits are scikit-learn's (8 x 8, from the UCI repository). Every fifth one is held out: ``split="train"`` never
    shows it, ``split="test"`` shows nothing else. A scene depends only on the split, the seed and its index, so any
    subset can be reproduced anywhere.

    Args:
        split: ``"train"`` or ``"test"``.
        size: Number of scenes, at least 1.
        seed: Random seed, at least 0; another seed gives other scenes with the same digits.

    Raises:
        ValueError: If the split is neither of the two, or the size or the seed is too small.

    Example:
        >>> image, label, mask = Scenes("test", size=3)[0]
        >>> image.shape, mask.shape, 0 <= label <= 9
        (torch.Size([3, 64, 64]), torch.Size([64, 64]), True)
    """

    def __init__(self, split: str = "test", size: int = 500, seed: int = 0) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}.")
        if size < 1 or seed < 0:
            raise ValueError(f"size must be at least 1 and seed at least 0, not {size} and {seed}.")
        images, labels = _digits()
        held_out = np.arange(len(labels)) % 5 == 0
        chosen = held_out if split == "test" else ~held_out
        self._images, self._labels = images[chosen], labels[chosen]
        self._key = (int(split == "test"), seed)
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < self._size:
            raise IndexError(f"There are {self._size} scenes, numbered from 0, but index {index} was requested.")
        random = np.random.default_rng((*self._key, index))
        which = int(random.integers(len(self._labels)))
        canvas = _strokes(_background(random), random)
        alpha = _placed(self._images[which], random)
        image = canvas * (1 - alpha[..., None]) + _ink(random) * alpha[..., None]
        pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).contiguous()
        return Scene(pixels, int(self._labels[which]), torch.from_numpy(alpha > 0.5))


def batch(scenes: Dataset[Scene], indices: range) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack some scenes.

    Args:
        scenes: The scenes.
        indices: Which of them.

    Returns:
        Images ``(B, 3, 64, 64)`` float in [0, 1], labels long ``(B,)`` and masks bool ``(B, 64, 64)``.

    Raises:
        IndexError: If an index is out of range.

    Example:
        >>> images, labels, masks = batch(Scenes("test", size=5), range(1, 3))
        >>> images.shape, labels.shape, masks.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]), torch.Size([2, 64, 64]))
    """
    chosen = [scenes[i] for i in indices]
    return (
        torch.stack([s.image for s in chosen]),
        torch.tensor([s.label for s in chosen]),
        torch.stack([s.mask for s in chosen]),
    )


class HumanScenes(Dataset[HumanSample]):
    """Scenes as human samples: the digit's pixels replace the human attention map.

    Args:
        scenes: The scenes.
    """

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> HumanSample:
        image, label, mask = self._scenes[index]
        return HumanSample((image * 255).round().to(torch.uint8), mask.float(), label, f"scene {index}")


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images from 0 to 255 and their classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images * (255 / 16)).astype(np.uint8), digits.target


@register_data("scenes", place="", limited=True, human=lambda path, limit: _in_order(limit))
def _scenes(path: Path, limit: int | None) -> HumanSamples:
    return HumanSamples(HumanScenes(Scenes("test", _SCENES if limit is None else limit)))


def _in_order(limit: int | None) -> Iterator[HumanSample]:
    scenes = HumanScenes(Scenes("test", _SCENES if limit is None else limit))
    return (scenes[index] for index in range(len(scenes)))


def _background(random: np.random.Generator) -> np.ndarray:
    """A dim texture: noise at two scales around one colour."""
    texture = np.zeros((SIZE, SIZE, 3))
    for cells, strength in ((4, 0.12), (16, 0.08)):
        noise = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        texture += strength * (np.asarray(smooth) / 127.5 - 1)
    return np.clip(random.uniform(0.15, 0.4, 3) + texture, 0, 1)


def _strokes(canvas: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Three to six bent lines in the digit's range of colours and widths."""
    large = Image.fromarray((canvas * 255).astype(np.uint8)).resize((SIZE * _DRAW,) * 2)
    draw = ImageDraw.Draw(large)
    for _ in range(random.integers(3, 7)):
        start, end = random.uniform(0, SIZE, 2), random.uniform(-22, 22, 2)
        bend = random.uniform(-8, 8, 2)
        t = np.linspace(0, 1, 9)[:, None]
        points = (start + t * end + 4 * t * (1 - t) * bend) * _DRAW
        colour = tuple(int(255 * c) for c in _ink(random))
        draw.line([tuple(p) for p in points], fill=colour, width=int(random.integers(4, 8)), joint="curve")
    return np.asarray(large.resize((SIZE, SIZE), Image.Resampling.BOX)) / 255


def _ink(random: np.random.Generator) -> np.ndarray:
    return random.uniform(0.55, 1.0, 3)


def _placed(digit: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The digit's coverage of each pixel: enlarged, slightly rotated, somewhere inside the frame."""
    side = int(random.integers(26, 39))
    turned = (
        Image.fromarray(digit)
        .resize((side, side), Image.Resampling.BICUBIC)
        .rotate(float(random.uniform(-12, 12)), Image.Resampling.BICUBIC)
    )
    left, top = random.integers(0, SIZE - side + 1, 2)
    alpha = np.zeros((SIZE, SIZE))
    alpha[top : top + side, left : left + side] = np.asarray(turned) / 255
    return np.clip(alpha * 1.6 - 0.2, 0, 1)
