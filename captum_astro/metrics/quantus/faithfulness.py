"""Quantus metrics that run the model on images without some pixels: perturbation AUC, AOPC, LOdds and SaCo.

They remove whole pixels of colour images, not entries of single channels, and each sample is run separately, so that
its score does not depend on the batch size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from quantus.helpers.enums import EvaluationCategory, ScoreDirection

from captum_astro.metrics import perturbation
from captum_astro.metrics.perturber import Baseline, Perturber
from captum_astro.metrics.quantus.base import TensorMetric
from captum_astro.metrics.saco import saco


class ModelMetric(TensorMetric):
    """A metric that runs the model, sample by sample; ``model.predict`` must return logits, the default.

    Raises:
        ValueError: When called, if there is no model, it has a single class, or was wrapped with ``softmax=True``.
    """

    evaluation_category: ClassVar[EvaluationCategory] = EvaluationCategory.FAITHFULNESS

    def scores(
        self,
        maps: torch.Tensor,
        target: torch.Tensor | None,
        *,
        model: Any = None,
        x_batch: NDArray[Any] | None = None,
        y_batch: NDArray[Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Run `score` on one sample after the other."""
        if model is None or x_batch is None or y_batch is None:
            raise ValueError(f"{self.name}: model, x_batch and y_batch are needed; the metric runs the model.")
        if getattr(model, "softmax", False):
            raise ValueError(f"{self.name}: logits are needed; leave out softmax=True.")
        images = torch.as_tensor(np.asarray(x_batch))
        classes = torch.as_tensor(np.asarray(y_batch)).reshape(-1).long()

        def logits(inputs: torch.Tensor) -> torch.Tensor:
            found = torch.as_tensor(model.predict(inputs.numpy()))
            if found.shape[-1] < 2:
                raise ValueError(f"{self.name}: a model with a single class always chooses it, with probability 1.")
            return found

        found = [self.score(logits, images[i, None], maps[i, None], classes[i, None]) for i in range(len(maps))]
        return torch.cat(found) if found else maps.new_zeros(0)

    @abstractmethod
    def score(self, model: Any, image: torch.Tensor, salience: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """``(1, C, H, W)`` normalised, its map ``(1, H, W)`` and class ``(1,)`` to the score ``(1,)``."""


class PerturbationMetric(ModelMetric):
    """A metric of the model's output as pixels are set to 0 in [0, 1] space, before normalisation.

    Args:
        mean: The value subtracted from each channel of ``x_batch``; a number for all, or one per channel.
        std: The value by which each channel was then divided.
        steps: The number of equal steps from nothing to everything removed; 20 are the papers' 5 %.
        batch_size: Perturbed images at a time.
        baseline: What removed pixels become, ``"black"`` or ``"blurred"``, as in `Perturber`.
        **kwargs: The options of any Quantus metric, see `TensorMetric`.

    Raises:
        ValueError: When called, if the images are not in [0, 1] before normalisation: ``mean`` and ``std`` do not fit.
    """

    positive: ClassVar[bool] = True  # most important pixels first

    def __init__(
        self,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        *,
        steps: int = 20,
        batch_size: int = 64,
        baseline: Baseline = "black",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mean, self.std = (torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1) for values in (mean, std))
        self.steps, self.batch_size, self.baseline = steps, batch_size, baseline

    def pixels(self, image: torch.Tensor) -> torch.Tensor:
        """``(1, C, H, W)`` float64 in [0, 1], before normalisation."""
        return image.double() * self.std + self.mean

    def engine(self, model: Any, image: torch.Tensor) -> Perturber:
        """The engine that runs the model on changed pixels."""

        def normalise(pixels: torch.Tensor) -> torch.Tensor:  # from float64, so that the image is restored exactly
            return ((pixels - self.mean) / self.std).to(image.dtype)

        return Perturber(model, normalise, steps=self.steps, batch_size=self.batch_size, baseline=self.baseline)

    def score(self, model: Any, image: torch.Tensor, salience: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The score of the curve's logits."""
        engine, pixels = self.engine(model, image), self.pixels(image)
        curve = engine.curve(pixels, salience, engine.untouched(pixels), most_important_first=self.positive)
        return self.of_curve(curve, label)

    @abstractmethod
    def of_curve(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Logits ``(1, L, classes)`` and class ``(1,)`` to the score ``(1,)``."""


class PerturbationAUC(PerturbationMetric):
    """Area under the top-1 accuracy curve as pixels are removed, 0 % and 100 % included.

    From 0 to 1. Positive (most important pixels first): lower is better. Negative (least important first): higher is
    better. ``y_batch`` are the labels that the top prediction is compared with; whether the maps explain them or the
    predicted classes is up to the caller. Source: the perturbation tests of Chefer et al., CVPR 2021, as in VTranM.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        direction: ``"positive"`` or ``"negative"``.
        **kwargs: ``steps``, ``batch_size`` and the options of any Quantus metric, see `PerturbationMetric`.

    Raises:
        ValueError: If the direction is neither of the two.

    Example:
        >>> brightest = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
        >>> x, y = np.zeros((1, 3, 4, 5), dtype=np.float32), np.array([1])
        >>> x[:, 1, 2] = 1
        >>> PerturbationAUC(0, 1)(model=brightest, x_batch=x, y_batch=y, a_batch=x[:, 1])
        [0.225]
    """

    name: ClassVar[str] = "Perturbation AUC"

    def __init__(
        self,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        direction: Literal["positive", "negative"] = "positive",
        **kwargs: Any,
    ) -> None:
        super().__init__(mean, std, **kwargs)
        if direction not in ("positive", "negative"):
            raise ValueError(f"direction must be 'positive' or 'negative', not {direction!r}.")
        positive = direction == "positive"
        better = ScoreDirection.LOWER if positive else ScoreDirection.HIGHER
        vars(self).update(positive=positive, score_direction=better, name=f"{direction.capitalize()} {self.name}")

    def of_curve(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """See `perturbation.area_under_curve`."""
        return perturbation.area_under_curve(perturbation.top_choice_is(logits, label))


class AOPC(PerturbationMetric):
    """The drop of the class's probability as the most important pixels are removed, `perturbation.aopc`.

    From -1 to 1, higher is better. ``y_batch`` are the explained classes. Source: VTranM, Eq. 21; Samek et al., 2017.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        **kwargs: ``steps``, ``batch_size`` and the options of any Quantus metric, see `PerturbationMetric`.
    """

    name: ClassVar[str] = "AOPC"

    def of_curve(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """See `perturbation.aopc`."""
        return perturbation.aopc(perturbation.class_probability(logits, label))


class LOdds(PerturbationMetric):
    """Log-ratio of the class's probability as the most important pixels are removed, `perturbation.log_odds`.

    Lower is better. ``y_batch`` are the explained classes. Source: VTranM, Eq. 22; Shrikumar et al., ICML 2017.

    Args:
        mean: The value subtracted from each channel of ``x_batch``.
        std: The value by which each channel was then divided.
        **kwargs: ``steps``, ``batch_size`` and the options of any Quantus metric, see `PerturbationMetric`.
    """

    name: ClassVar[str] = "LOdds"
    score_direction: ClassVar[ScoreDirection] = ScoreDirection.LOWER

    def of_curve(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """See `perturbation.log_odds`."""
        return perturbation.log_odds(perturbation.class_probability(logits, label))


class SaCo(ModelMetric):
    """Whether pixels with more salience matter more to the model, `captum_astro.metrics.saco.saco`.

    From -1 to 1, higher is better, 0 for a random order; NaN for a constant map. ``y_batch`` are the explained classes.
    Source: Wu et al., CVPR 2024 (arXiv 2404.01415), Algorithm 1.

    Args:
        groups: The number of pixel groups.
        **kwargs: The options of any Quantus metric, see `TensorMetric`.
    """

    name: ClassVar[str] = "SaCo"

    def __init__(self, groups: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def score(self, model: Any, image: torch.Tensor, salience: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """See `captum_astro.metrics.saco.saco`."""

        def predict(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
            return perturbation.class_probability(model(pictures)[:, None], label[owners])[:, 0]

        return saco(salience, image, predict, self.groups)
