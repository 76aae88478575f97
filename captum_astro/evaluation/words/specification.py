"""What is compared: text models, test reviews, and the settings of the comparison."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class TextModel:
    """A text classifier with its tokeniser.

    Attributes:
        name: Its name in the rows.
        model: Maps token ids ``(B, n)``, with padding 0, to logits ``(B, classes)``; in eval mode.
        encode: The token ids of each text, long ``(n,)``, at least one.
        options: How it was trained: for the record.
    """

    name: str
    model: nn.Module
    encode: Callable[[Sequence[str]], list[torch.Tensor]]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WordsConfig:
    """Settings of a comparison.

    Attributes:
        reviews: The number of reviews, spread evenly over the test set; all of them if there are fewer.
        draws: Random orders of each review, whose scores are averaged.
        steps: Equal steps of the deletion curves.
        batch_size: Texts at a time.
        seed: Random seed of the orders.
        device: Where the models compute.
    """

    reviews: int = 100
    draws: int = 5
    steps: int = 20
    batch_size: int = 64
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("reviews", "draws", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1, not {getattr(self, name)}.")


@dataclass(frozen=True)
class Review:
    """A text of the test set: its index there, its words, and its class."""

    number: int
    text: str
    label: int

    @property
    def name(self) -> str:
        """Its name in the rows."""
        return f"review {self.number}"

    @property
    def digest(self) -> str:
        """A short digest of the words and the class."""
        return hashlib.sha256(f"{self.label} {self.text}".encode()).hexdigest()[:16]


def spread(texts: Sequence[str], labels: Sequence[int], count: int) -> list[Review]:
    """Reviews spread evenly: one from the middle of each of ``count`` equal stretches, or all if there are fewer.

    Example:
        >>> [review.number for review in spread([*"abcdefghij"], [0] * 10, 2)]
        [2, 7]
    """
    total = len(texts)
    count = min(count, total)
    chosen = [(2 * i + 1) * total // (2 * count) for i in range(count)]
    return [Review(i, texts[i], labels[i]) for i in chosen]
