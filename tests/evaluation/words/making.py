"""A small text model, and reviews that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from captum_astro.evaluation.words import TextModel
from captum_astro.models.astromorphic_text import AstromorphicTextClassifier

TEXTS = [
    "d e f g h i j",
    "k",
    "a b",
    "c c c d",
    "b a d c f e",
    "i i",
    "j a i b h",
    "e",
    "g f e d c b a",
    "h d",
    "f k a",
]
LABELS = [i % 2 for i in range(len(TEXTS))]


def classifier(attention: Any = "astromorphic") -> AstromorphicTextClassifier:
    torch.manual_seed(0)
    model = AstromorphicTextClassifier(14, 2, dim=8, num_heads=2, depth=2, length=8, attention=attention)
    model = model.double().eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def encode(texts: Sequence[str]) -> list[torch.Tensor]:
    """The n-th letter is n + 1: 1 is an unknown word, as in a run's tokeniser."""
    return [torch.tensor([ord(letter) - ord("a") + 2 for letter in text.split()]) for text in texts]


def subject(name: str = "astro", attention: Any = "astromorphic") -> TextModel:
    return TextModel(name, classifier(attention), encode, {"attention": attention})
