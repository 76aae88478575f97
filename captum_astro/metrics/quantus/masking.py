"""Average drop, average increase, sensitivity-n and infidelity as Quantus metrics, on whole pixels of colour images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from quantus.helpers.enums import ScoreDirection

from captum_astro.metrics import average_drop as of_mask
from captum_astro.metrics import random_cells
from captum_astro.metrics.declaration import Given
from captum_astro.metrics.perturbation import class_probability
from captum_astro.metrics.quantus.faithfulness import PerturbationMetric


class ProbabilityMetric(PerturbationMetric):
    """A metric of the class's probability for images changed in [0, 1] space, before normalisation.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        batch_size: Changed images at a time.
        **kwargs: The options of any Quantus metric, see `TensorMetric`.
    """

    def __init__(
        self, mean: float | Sequence[float], std: float | Sequence[float], *, batch_size: int = 64, **kwargs: Any
    ) -> None:
        super().__init__(mean, std, batch_size=batch_size, **kwargs)

    def score(self, model: Any, image: torch.Tensor, salience: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The score of one image."""
        engine, pixels = self.engine(model, image), self.pixels(image)

        def probability(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
            return class_probability(engine.untouched(pictures)[:, None], label[owners])[:, 0]

        known = {"maps": salience, "classes": label, "pixels": pixels, "probability": probability}
        return self.of_given(Given(**known, logits=engine.untouched(pixels)))

    @abstractmethod
    def of_given(self, given: Given) -> torch.Tensor:
        """The score of the maps in ``given``, ``(B,)``."""

    def of_curve(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """It has no curve."""
        raise NotImplementedError(f"{self.name} has no curve; use score.")


class AverageDrop(ProbabilityMetric):
    """The share of the class's probability that is lost when the map masks the image, `average_drop`.

    From 0 to 1, lower is better. ``y_batch`` are the explained classes. Source: Chattopadhay et al., "Grad-CAM++", WACV
    2018.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        **kwargs: ``batch_size`` and the options of any Quantus metric, see `ProbabilityMetric`.
    """

    name: ClassVar[str] = "Average Drop"
    score_direction: ClassVar[ScoreDirection] = ScoreDirection.LOWER

    def of_given(self, given: Given) -> torch.Tensor:
        """See `captum_astro.metrics.average_drop.average_drop`."""
        return of_mask.average_drop(*of_mask.probabilities(given))


class AverageIncrease(ProbabilityMetric):
    """Whether the class's probability rises when the map masks the image, `average_increase`.

    1 or 0, higher is better. ``y_batch`` are the explained classes. Source: Chattopadhay et al., "Grad-CAM++", WACV
    2018.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        **kwargs: ``batch_size`` and the options of any Quantus metric, see `ProbabilityMetric`.
    """

    name: ClassVar[str] = "Average Increase"

    def of_given(self, given: Given) -> torch.Tensor:
        """See `captum_astro.metrics.average_drop.average_increase`."""
        return of_mask.average_increase(*of_mask.probabilities(given))


class SensitivityN(ProbabilityMetric):
    """Whether the sum of a map over random cells says what the class loses without them, `sensitivity_n`.

    From -1 to 1, higher is better. ``y_batch`` are the explained classes. Source: Ancona et al., ICLR 2018.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        **kwargs: ``batch_size`` and the options of any Quantus metric, see `ProbabilityMetric`.
    """

    name: ClassVar[str] = "Sensitivity-n"

    def of_given(self, given: Given) -> torch.Tensor:
        """See `captum_astro.metrics.random_cells.sensitivity_n`."""
        return random_cells.sensitivity_n(random_cells.removals(given))


class Infidelity(ProbabilityMetric):
    """The squared difference between the sums of a map over random cells and the class's losses, `infidelity`.

    From 0, lower is better; every map is scaled to be at its best. ``y_batch`` are the explained classes. Source: Yeh
    et al., NeurIPS 2019.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        **kwargs: ``batch_size`` and the options of any Quantus metric, see `ProbabilityMetric`.
    """

    name: ClassVar[str] = "Infidelity"
    score_direction: ClassVar[ScoreDirection] = ScoreDirection.LOWER

    def of_given(self, given: Given) -> torch.Tensor:
        """See `captum_astro.metrics.random_cells.infidelity`."""
        return random_cells.infidelity(random_cells.removals(given))
