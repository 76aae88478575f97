"""Inputs that decide nothing have a decided value in every registered metric."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from captum_astro.metrics.declaration import Given, Metric
from captum_astro.metrics.registry import all_metrics

METRICS = all_metrics()
SIZE = 16
UNLABELLED = {"object share"}  # describes the mask: 0 and 1 are its values
CHANCE = {"pointing game": 0.5, "energy inside": 0.5, "mAP": 0.5}  # of a constant map on a mask that is half object
HUMAN = {"Spearman", "Dice", "IoU", "SSIM"}


def inputs(count: int = 3, classes: int = 4) -> dict[str, Any]:
    random = torch.Generator().manual_seed(0)
    mask = torch.zeros(count, SIZE, SIZE, dtype=torch.int8)
    mask[:, : SIZE // 2] = 1
    return {
        "maps": torch.rand(count, SIZE, SIZE, generator=random),
        "human_maps": torch.rand(count, SIZE, SIZE, generator=random),
        "masks": mask,
        "classes": torch.zeros(count, dtype=torch.long),
        "labels": torch.zeros(count, dtype=torch.long),
        "pixels": torch.rand(count, 3, SIZE, SIZE, generator=random),
        "logits": torch.randn(count, classes, generator=random),
        "positive_logits": torch.randn(count, 5, classes, generator=random),
        "negative_logits": torch.randn(count, 5, classes, generator=random),
        "blurred_positive_logits": torch.randn(count, 5, classes, generator=random),
        "blurred_negative_logits": torch.randn(count, 5, classes, generator=random),
        "probability": lambda pictures, owners: pictures.mean((1, 2, 3)),
        "answers": lambda pictures, owners: pictures.mean((2, 3)),
        "explain": lambda pictures, owners: pictures.mean(1),
        "randomised": lambda cascading: torch.rand(count, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(1)),
    }


def expected(metric: Metric, case: str) -> float | None:
    """The decided value of the first sample; None if the input does not concern the metric."""
    of_map = not metric.of_model
    if case in ("NaN map", "infinite map"):
        return math.nan if of_map else None
    if case == "constant map":
        return None if metric.of_model else CHANCE.get(metric.name, 0.0 if metric.name in HUMAN else math.nan)
    if case in ("empty mask", "full mask", "unknown mask"):
        if metric.name in UNLABELLED:
            return {"empty mask": 0.0, "full mask": 1.0, "unknown mask": math.nan}[case]
        return math.nan if "masks" in metric.needs else None
    if case in ("constant human map", "NaN human map"):
        return math.nan if "human_maps" in metric.needs else None
    return math.nan if any(need.endswith("logits") for need in metric.needs) else None


CASES = {
    "NaN map": ("maps", torch.nan),
    "infinite map": ("maps", torch.inf),
    "constant map": ("maps", 1.0),
    "empty mask": ("masks", 0),
    "full mask": ("masks", 1),
    "unknown mask": ("masks", -1),
    "constant human map": ("human_maps", 1.0),
    "NaN human map": ("human_maps", torch.nan),
}


@pytest.mark.parametrize("case", [*CASES, "one class"])
@pytest.mark.parametrize("name", METRICS)
def test_decided_value_and_reason(name: str, case: str) -> None:
    metric = METRICS[name]
    usual, given = inputs(), inputs(classes=1 if case == "one class" else 4)
    if case in CASES:
        part, value = CASES[case]
        given[part][0] = value
    found, plain = metric.scores(Given(**given), 3), metric.scores(Given(**usual), 3)
    assert plain.values.isfinite().all()
    assert list(plain.reasons) == [None] * 3
    wanted = expected(metric, case)
    if wanted is None:
        assert torch.equal(found.values, plain.values)
    else:
        assert found.values[0].item() == pytest.approx(wanted, abs=1e-12, nan_ok=True)
        assert (found.reasons[0] is not None) == (math.isnan(wanted) and name not in UNLABELLED)
    if case != "one class":
        assert torch.equal(found.values[1:], plain.values[1:])  # the others of the batch are unaffected


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("name", METRICS)
def test_no_sample_and_one(name: str, count: int) -> None:
    found = METRICS[name].scores(Given(**inputs(count)), count)
    assert found.values.shape == (count,)
    assert len(found.reasons) == count
    assert found.values.isfinite().all()
