"""ROAD on images with channels, which Quantus' own rejects; the imputation is Quantus'."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from quantus.helpers.enums import EvaluationCategory, ScoreDirection

from captum_astro.metrics.quantus.base import TensorMetric
from captum_astro.metrics.road import imputed


class ROAD(TensorMetric):
    """Remove And Debias: is the class still predicted after the top pixels became noisy averages of their neighbours?

    Quantus 0.6.0 ranks channel entries where it removes pixels, so that it fails on images with channels, and it scores
    only the first batch. Here pixels are ranked (ties in order of position) and removed with all their channels, every
    batch counts, and each sample has its own noise, whatever the batch size.

    A sample's score is the fraction of the percentages at which ``y_batch`` is still the model's top prediction, from 0
    to 1, lower is better. After a call ``accuracy`` holds what Quantus returns: for each percentage the accuracy over
    all samples. Source: Rong et al., "A consistent and efficient evaluation strategy for attribution methods", ICML
    2022 (arXiv 2202.00449).

    Args:
        percentages: The percentages of removed pixels, each above 0 and below 100. Each costs a forward pass and a
            linear system as large as the number of removed pixels.
        noise: The standard deviation of the noise, in units of the inputs.
        seed: Random seed of the noise.
        **kwargs: The options of any Quantus metric, see `TensorMetric`.

    Raises:
        ValueError: If a percentage is out of range or there is none; when called, if there is no model, or a map has
            NaN or infinite values.

    Example:
        >>> brightest = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
        >>> x, y = np.zeros((1, 3, 8, 9), dtype=np.float32), np.array([1])
        >>> x[:, 1, 2:4, 2:4] = 1
        >>> road = ROAD(percentages=[1, 10], noise=0)
        >>> road(model=brightest, x_batch=x, y_batch=y, a_batch=x[:, 1])
        [0.5]
        >>> road.accuracy
        {1: 1.0, 10: 0.0}
    """

    name: ClassVar[str] = "ROAD"
    score_direction: ClassVar[ScoreDirection] = ScoreDirection.LOWER
    evaluation_category: ClassVar[EvaluationCategory] = EvaluationCategory.FAITHFULNESS

    def __init__(
        self,
        percentages: Sequence[float] = (10, 20, 30, 40, 50, 70, 90),
        noise: float = 0.01,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not percentages or not all(0 < percentage < 100 for percentage in percentages):
            raise ValueError(f"percentages: some numbers above 0 and below 100 are needed, not {percentages!r}.")
        self.percentages = list(percentages)
        self.noise, self.seed = noise, seed
        self.accuracy: dict[float, float] = {}
        self._kept: list[NDArray[np.bool_]] = []

    def custom_preprocess(self, **kwargs: Any) -> None:
        """Reset the results of the last call.

        Args:
            **kwargs: The arguments passed by Quantus.
        """
        self._kept, self.accuracy = [], {}

    def custom_postprocess(self, **kwargs: Any) -> None:
        """Average over the samples of all batches.

        Args:
            **kwargs: The arguments passed by Quantus.
        """
        means = np.mean(self._kept, axis=0).tolist() if self._kept else []
        self.accuracy = dict(zip(self.percentages, means, strict=False))

    def scores(self, maps: torch.Tensor, target: torch.Tensor | None, **kwargs: Any) -> torch.Tensor:
        """The fraction of the percentages at which each sample keeps its class."""
        model, x, y = kwargs["model"], kwargs["x_batch"], np.asarray(kwargs["y_batch"]).reshape(-1)
        if model is None:
            raise ValueError(f"{self.name}: a model is needed, which sees the images without their top pixels.")
        if not maps.isfinite().all():
            raise ValueError(f"{self.name}: a map has NaN or infinite values; leave it out.")
        order = maps.flatten(1).sort(dim=1, descending=True, stable=True).indices.numpy()
        kept = np.empty((len(x), len(self.percentages)), dtype=bool)
        images = torch.as_tensor(np.asarray(x))
        for column, percentage in enumerate(self.percentages):
            gone = order[:, : int(order.shape[1] * percentage / 100)]
            seeds = [zlib.crc32(f"{self.seed} {len(self._kept) + i} {percentage}".encode()) for i in range(len(x))]
            pictures = np.stack([self._without(*sample) for sample in zip(images, gone, seeds, strict=True)])
            logits = model.predict(model.shape_input(pictures, pictures.shape, channel_first=True, batched=True))
            kept[:, column] = np.argmax(logits, axis=-1) == y
        self._kept.extend(kept)
        return torch.from_numpy(kept.mean(1))

    def _without(self, image: torch.Tensor, pixels: NDArray[np.int_], seed: int) -> NDArray[Any]:
        """An image ``(C, H, W)`` with some pixels imputed and noise added to them."""
        gone = torch.zeros(image[0].numel(), dtype=torch.bool)
        gone[pixels.copy()] = True
        found: NDArray[Any] = imputed(image, gone.reshape(image.shape[1:]), self.noise, seed).numpy()
        return found
