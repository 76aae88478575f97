"""Base of this package's Quantus metrics: a class around a function on tensors, one score per sample."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from quantus.helpers.enums import DataType, EvaluationCategory, ModelType, ScoreDirection
from quantus.metrics.base import Metric


class TensorMetric(Metric[list[float]]):
    """A Quantus metric whose scores come from a function on tensors; a subclass sets its name and defines ``scores``.

    Unlike in Quantus, explanations are used unchanged (no ``abs``, no ``normalise``), nothing is aggregated, and
    nothing is printed. With ``normalise=True`` each map is divided by its own largest absolute value, not by the
    largest of the batch. A score depends only on its own sample, whatever the batch size.

    Args:
        **kwargs: ``abs``, ``normalise``, ``normalise_func``, ``normalise_func_kwargs``, ``return_aggregate``,
            ``aggregate_func``, ``default_plot_func``, ``disable_warnings``, ``display_progressbar``, as for any Quantus
            metric.

    Raises:
        ValueError: If another keyword is given.
    """

    data_applicability: ClassVar[set[DataType]] = {DataType.IMAGE}
    model_applicability: ClassVar[set[ModelType]] = {ModelType.TORCH}
    score_direction: ClassVar[ScoreDirection] = ScoreDirection.HIGHER

    def __init__(self, **kwargs: Any) -> None:
        defaults: dict[str, Any] = {
            "abs": False,
            "normalise": False,
            "normalise_func": _by_own_largest,
            "normalise_func_kwargs": None,
            "return_aggregate": False,
            "aggregate_func": np.mean,
            "default_plot_func": None,
            "disable_warnings": True,
            "display_progressbar": False,
        }
        super().__init__(**(defaults | kwargs))

    def __call__(
        self,
        model: torch.nn.Module | None,
        x_batch: NDArray[Any],
        y_batch: NDArray[Any],
        a_batch: NDArray[Any] | None = None,
        s_batch: NDArray[Any] | None = None,
        explain_func_kwargs: dict[str, Any] | None = None,
        batch_size: int = 64,
        **kwargs: Any,
    ) -> list[float]:
        """Score explanations.

        Args:
            model: The explained model, in eval mode.
            x_batch: Its inputs, ``(B, C, H, W)``.
            y_batch: The classes explained, ``(B,)``.
            a_batch: The explanations, ``(B, H, W)``, ``(B, 1, H, W)`` or ``(B, C, H, W)``, whose channels are averaged;
                None to compute them with ``explain_func``. Quantus rejects explanations that are all constant or all
                negative: the whole set if they are given here, each batch if ``explain_func`` computes them.
            s_batch: The ground truth that the explanations are compared with.
            explain_func_kwargs: Passed to ``explain_func``; a copy, since Quantus writes into it.
            batch_size: Samples at a time.
            **kwargs: ``explain_func``, ``device``, ``softmax``, ``channel_first``, ``model_predict_kwargs``,
                ``custom_batch``, as for any Quantus metric.

        Returns:
            One score per sample.
        """
        defaults: dict[str, Any] = {
            "channel_first": None,
            "explain_func": None,
            "model_predict_kwargs": None,
            "softmax": False,
        }
        scores: list[float] = super().__call__(
            model=model,
            x_batch=x_batch,
            y_batch=y_batch,
            a_batch=a_batch,
            s_batch=s_batch,
            explain_func_kwargs=dict(explain_func_kwargs or {}),
            batch_size=batch_size,
            **(defaults | kwargs),
        )
        return scores

    def evaluate_batch(self, a_batch: NDArray[Any], s_batch: NDArray[Any] | None = None, **kwargs: Any) -> list[float]:
        """Pass a batch to `scores`.

        Args:
            a_batch: ``(B, C, H, W)``; the channels are averaged.
            s_batch: The data passed to Quantus, for B samples.
            **kwargs: ``model``, ``x_batch``, ``y_batch`` and ``custom_batch``, passed on.

        Returns:
            One score per sample.
        """
        maps = torch.as_tensor(np.asarray(a_batch, dtype=np.float64)).mean(1)
        target = None if s_batch is None else torch.as_tensor(np.asarray(s_batch, dtype=np.float64))
        found: list[float] = self.scores(maps, target, **kwargs).tolist()
        return found

    @abstractmethod
    def scores(self, maps: torch.Tensor, target: torch.Tensor | None, **kwargs: Any) -> torch.Tensor:
        """The metric: explanations ``(B, H, W)`` and ``s_batch``, both float64, to scores ``(B,)``."""

    def interpret_scores(self) -> None:
        """Print the metric's description."""
        print(type(self).__doc__)  # noqa: T201


class TargetMetric(TensorMetric):
    """A metric that compares explanations with ``s_batch``, ``(B, H, W)`` or ``(B, 1, H, W)``.

    A subclass defines ``agreement`` and describes the expected ``s_batch`` in ``target``.

    Raises:
        ValueError: When called, if ``s_batch`` is missing, or a map is not valid for the function.
    """

    evaluation_category: ClassVar[EvaluationCategory] = EvaluationCategory.LOCALISATION
    target: ClassVar[str] = "the ground truth"

    def custom_preprocess(self, *, s_batch: Any = None, **kwargs: Any) -> dict[str, Any]:
        """``s_batch`` as an array, whatever its container."""
        return {"s_batch": np.asarray(self._needed(s_batch))}

    def scores(self, maps: torch.Tensor, target: torch.Tensor | None, **kwargs: Any) -> torch.Tensor:
        """The agreement with ``s_batch``."""
        return self.agreement(maps, self._needed(target))

    @abstractmethod
    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Explanations ``(B, H, W)`` and ``s_batch`` in its given shape, both float64, to scores ``(B,)``."""

    def _needed(self, given: Any) -> Any:
        if given is None:
            raise ValueError(f"{self.name}: s_batch is missing; pass {self.target}, (B, H, W) or (B, 1, H, W).")
        return given


class MaskMetric(TargetMetric):
    """A metric that needs masks in ``s_batch``: 1 object, 0 background, -1 unknown, which is ignored.

    Raises:
        ValueError: When called, if ``s_batch`` is missing, has another shape than the maps, or other values.
    """

    target: ClassVar[str] = "the masks (1 object, 0 background, -1 unknown)"


def _by_own_largest(attributions: NDArray[Any]) -> NDArray[Any]:
    largest = np.abs(attributions).max(axis=tuple(range(1, attributions.ndim)), keepdims=True)
    return attributions / np.where(largest > 0, largest, 1)
