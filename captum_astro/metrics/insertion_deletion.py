"""Insertion, deletion and the area between the two curves: the class's probability as pixels appear or disappear.

Pixels disappear into a baseline: black, or the image blurred. Deletion starts at the image and removes the most
important pixels first; insertion starts at the baseline and brings them in. Insertion is the negative curve of the
perturbation tests read backwards, so that with the black baseline these metrics need no forward pass of their own.

Sources: Petsiuk et al., "RISE", BMVC 2018, for insertion (there from a blurred image) and deletion; Blücher et al.,
"Decoupling pixel flipping and occlusion strategy for consistent XAI benchmarks", TMLR 2024, for the area between the
curves, least important first minus most important first (ABPC).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from captum_astro.metrics.declaration import RANDOM_MAPS, CurvePlot, Given, Metric, Need, Scores
from captum_astro.metrics.perturbation import area_under_curve, class_probability
from captum_astro.metrics.registry import register


def deletion(probability: torch.Tensor) -> torch.Tensor:
    """Area under the class's probability as the most important pixels are removed, first to last.

    Args:
        probability: ``(B, L)``, the whole image first; of the positive curve.

    Returns:
        ``(B,)`` float64, from 0 to 1, lower is better.

    Raises:
        ValueError: If it is not a batch of curves.

    Example:
        >>> deletion(torch.tensor([[0.8, 0.2, 0.0]]))
        tensor([0.3000], dtype=torch.float64)
    """
    return area_under_curve(probability)


def insertion(probability: torch.Tensor) -> torch.Tensor:
    """Area under the class's probability as the most important pixels are brought into the baseline.

    Args:
        probability: ``(B, L)``, the whole image first and the baseline last; of the negative curve, in which the pixel
            that is inserted first is the one that is removed last.

    Returns:
        ``(B,)`` float64, from 0 to 1, higher is better.

    Raises:
        ValueError: If it is not a batch of curves.

    Example:
        >>> insertion(torch.tensor([[0.8, 0.8, 0.0]]))
        tensor([0.6000], dtype=torch.float64)
    """
    return area_under_curve(probability.flip(-1))


def abpc(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Area between the perturbation curves: that of the negative one minus that of the positive one.

    Args:
        positive: ``(B, L)``, the class's probability, most important pixels first.
        negative: ``(B, L)``, least important first.

    Returns:
        ``(B,)`` float64, from -1 to 1, higher is better; a random order scores 0 on average.

    Raises:
        ValueError: If one is not a batch of curves.

    Example:
        >>> abpc(torch.tensor([[0.8, 0.2, 0.0]]), torch.tensor([[0.8, 0.8, 0.0]]))
        tensor([0.3000], dtype=torch.float64)
    """
    return area_under_curve(negative) - area_under_curve(positive)


def _deletion(given: Given) -> torch.Tensor:
    return deletion(class_probability(given.positive_logits, given.classes))  # AOPC's rows hold the curve


def _insertion(given: Given) -> Scores:
    curve = class_probability(given.negative_logits, given.classes)
    return Scores(insertion(curve), curve.flip(-1))


def _abpc(given: Given) -> torch.Tensor:
    curves = (class_probability(logits, given.classes) for logits in (given.positive_logits, given.negative_logits))
    return abpc(*curves)


def _blurred_deletion(given: Given) -> Scores:
    curve = class_probability(given.blurred_positive_logits, given.classes)
    return Scores(deletion(curve), curve)


def _blurred_insertion(given: Given) -> Scores:
    curve = class_probability(given.blurred_negative_logits, given.classes)
    return Scores(insertion(curve), curve.flip(-1))


def _plot(title: str, across: str) -> CurvePlot:
    return CurvePlot(f"{title}; probability of the {{explained}} class", "probability, %", across)


def _declare(name: str, compute: Callable[[Given], torch.Tensor | Scores], *needs: Need, **options: Any) -> None:
    same: dict[str, Any] = {"kind": "perturbation", "percent": True, "chance": RANDOM_MAPS, "constant": torch.nan}
    register(Metric(name, compute, needs=("classes", *needs), **same | options))


_declare(
    "deletion",
    _deletion,
    "positive_logits",
    direction=-1,
    meaning="Area under the explained class's probability as pixels are blackened, the most important first.",
)
_declare(
    "insertion",
    _insertion,
    "negative_logits",
    plot=_plot("Most important pixels inserted first", "pixels inserted, %"),
    meaning="Area under the explained class's probability as pixels are put on black, the most important first.",
)
_declare(
    "ABPC",
    _abpc,
    "positive_logits",
    "negative_logits",
    chance=0.0,
    meaning="Area between two curves of the explained class's probability: least minus most important pixels first.",
)
_declare(
    "blurred deletion",
    _blurred_deletion,
    "blurred_positive_logits",
    direction=-1,
    on_request=True,
    plot=_plot("Most important pixels blurred first", "pixels blurred, %"),
    meaning="Area under the explained class's probability as pixels are blurred, the most important first.",
)
_declare(
    "blurred insertion",
    _blurred_insertion,
    "blurred_negative_logits",
    on_request=True,
    plot=_plot("Most important pixels made sharp first", "pixels made sharp, %"),
    meaning="Area under the explained class's probability as a blurred image gets sharp, important pixels first.",
)
