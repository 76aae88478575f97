"""Insertion, deletion and the area between the curves as Quantus metrics."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from quantus.helpers.enums import ScoreDirection

from captum_astro.metrics.insertion_deletion import abpc, deletion, insertion
from captum_astro.metrics.perturbation import class_probability
from captum_astro.metrics.quantus.faithfulness import PerturbationMetric


class Deletion(PerturbationMetric):
    """Area under the class's probability as the most important pixels are removed, `deletion`.

    From 0 to 1, lower is better. ``y_batch`` are the explained classes. Source: Petsiuk et al., "RISE", BMVC 2018.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        **kwargs: ``steps``, ``batch_size``, ``baseline`` (``"black"`` or ``"blurred"``) and the options of any Quantus
            metric, see `PerturbationMetric`.
    """

    name: ClassVar[str] = "Deletion"
    score_direction: ClassVar[ScoreDirection] = ScoreDirection.LOWER

    def of_curve(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """See `captum_astro.metrics.insertion_deletion.deletion`."""
        return deletion(class_probability(logits, label))


class Insertion(PerturbationMetric):
    """Area under the class's probability as the most important pixels are brought in, `insertion`.

    From 0 to 1, higher is better. ``y_batch`` are the explained classes. Source: Petsiuk et al., "RISE", BMVC 2018,
    where the image is blurred at first (``baseline="blurred"``).

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        **kwargs: ``steps``, ``batch_size``, ``baseline`` (``"black"`` or ``"blurred"``) and the options of any Quantus
            metric, see `PerturbationMetric`.
    """

    name: ClassVar[str] = "Insertion"
    positive: ClassVar[bool] = False

    def of_curve(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """See `captum_astro.metrics.insertion_deletion.insertion`."""
        return insertion(class_probability(logits, label))


class ABPC(PerturbationMetric):
    """Area between the perturbation curves, `abpc`: least important pixels first minus most important first.

    From -1 to 1, higher is better, 0 for a random order on average. ``y_batch`` are the explained classes. Source:
    Blücher et al., TMLR 2024.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        **kwargs: ``steps``, ``batch_size``, ``baseline`` (``"black"`` or ``"blurred"``) and the options of any Quantus
            metric, see `PerturbationMetric`.
    """

    name: ClassVar[str] = "ABPC"

    def score(self, model: Any, image: torch.Tensor, salience: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The area between both curves."""
        engine, pixels = self.engine(model, image), self.pixels(image)
        both = engine.curves(pixels, salience, engine.untouched(pixels))
        return abpc(*(class_probability(logits, label) for logits in both))

    def of_curve(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """One curve is not enough for it."""
        raise NotImplementedError("ABPC reads both curves; use score.")
