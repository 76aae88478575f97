"""The configuration of a search and of an evaluation of ViTA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

METHODS = ("TokenGradCAM", "TokenGradCAMPlusPlus", "VTranM", "AttentionRollout", "IntegratedGradients")
_METRICS = ("spearman", "dice", "ssim")


@dataclass(frozen=True)
class SearchConfig:
    """A search.

    Attributes:
        methods: ``TokenGradCAM``, ``TokenGradCAMPlusPlus``, or both.
        metrics: A subset of the metrics that need human maps: ``spearman``, ``dice``, ``iou`` and ``ssim``.
        cam_layer: The layer of Grad-CAM, as in `captum_astro.TokenGradCAM`.
        size: Side length in pixels at which maps and human maps are compared; by default that of the model's input.
        batch_size: Images at a time.
        rows: Images x settings at a time.

    Raises:
        ValueError: If ``batch_size`` or ``rows`` is less than 1.
    """

    methods: tuple[str, ...] = METHODS[:2]
    metrics: tuple[str, ...] = _METRICS
    cam_layer: nn.Module | str | None = None
    size: int | None = None
    batch_size: int = 8
    rows: int = 64

    def __post_init__(self) -> None:
        _at_least_one(batch_size=self.batch_size, rows=self.rows)


@dataclass(frozen=True)
class EvaluationConfig:
    """An evaluation of one setting.

    Attributes:
        methods: Names of methods of this package, optionally with options, or Captum's: ``IntegratedGradients``
            (32 steps, the sum of absolute values over the channels), ``Occlusion``, ``Lime`` and ``KernelShap`` of
            patches.
        metrics: As in `SearchConfig`.
        explained: The class to explain: the plain model's top prediction, or each sample's label.
        size: As in `SearchConfig`.
        batch_size: Images at a time.

    Raises:
        ValueError: If ``batch_size`` is less than 1.
    """

    methods: tuple[str, ...] = METHODS
    metrics: tuple[str, ...] = _METRICS
    explained: Literal["predicted", "label"] = "predicted"
    size: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        _at_least_one(batch_size=self.batch_size)


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}.")


SEARCH, EVALUATION = SearchConfig(), EvaluationConfig()
