from __future__ import annotations

import contextlib
import io
import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import quantus
import timm
import torch
from quantus.helpers.enums import EvaluationCategory, ScoreDirection
from torch import nn

from captum_astro.metrics.quantus.base import TensorMetric
from captum_astro.metrics.quantus.faithfulness import AOPC, LOdds, PerturbationAUC, SaCo
from captum_astro.metrics.saco import saco
from tests.metrics.test_perturbation import masks_by_loops
from tests.metrics.test_perturber import MEAN, STD, TINY, normaliser

METRICS: dict[str, TensorMetric] = {
    "positive": PerturbationAUC(MEAN, STD),
    "negative": PerturbationAUC(MEAN, STD, "negative"),
    "AOPC": AOPC(MEAN, STD),
    "LOdds": LOdds(MEAN, STD),
    "SaCo": SaCo(),
}


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """A model, images that it distinguishes, its top predictions and maps."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **TINY).eval()
    nn.init.normal_(model.head.weight, std=1.0)
    x = normaliser(torch.float32)(torch.rand(4, 3, 32, 32))
    with torch.no_grad():
        y = model(x).argmax(-1)
    y[3] = (y[3] + 1) % 10  # one that the model gets wrong
    return {"model": model, "x_batch": x.numpy(), "y_batch": y.numpy(), "a_batch": torch.randn(4, 1, 32, 32).numpy()}


def by_hand(given: dict[str, Any], sample: int, *, first: bool) -> tuple[list[float], list[float]]:
    """Top-1 hits and probabilities of the class, level by level, one image at a time."""
    normalise = normaliser(torch.float32)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    x, y = torch.from_numpy(given["x_batch"])[sample], int(given["y_batch"][sample])
    salience = given["a_batch"][sample, 0]
    hits, probabilities = [], []
    for mask in masks_by_loops(salience.flatten().tolist(), 20, most_important_first=first):
        pixels = (x * std + mean).masked_fill(torch.tensor(mask).reshape(32, 32), 0)
        with torch.no_grad():
            found = given["model"](normalise(pixels)[None])[0].double()
        hits.append(float(found.argmax() == y))
        probabilities.append(float(found.softmax(0)[y]))
    return hits, probabilities


def test_scores_equal_the_loops(given: dict[str, Any]) -> None:
    expected: dict[str, list[float]] = {name: [] for name in METRICS}
    for sample in range(4):
        hits, probabilities = by_hand(given, sample, first=True)
        expected["positive"].append(math.fsum(a + b for a, b in pairwise(hits)) / 40)
        expected["AOPC"].append(math.fsum(probabilities[0] - p for p in probabilities[1:]) / 20)
        expected["LOdds"].append(math.fsum(math.log(p / probabilities[0]) for p in probabilities[1:]) / 20)
        hits, _ = by_hand(given, sample, first=False)
        expected["negative"].append(math.fsum(a + b for a, b in pairwise(hits)) / 40)
    x, y = torch.from_numpy(given["x_batch"]), torch.from_numpy(given["y_batch"])

    def predict(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return given["model"](pictures).double().softmax(-1)[range(len(owners)), y[owners]]

    expected["SaCo"] = saco(torch.from_numpy(given["a_batch"]), x, predict).tolist()
    for name, metric in METRICS.items():
        scores = type(metric)(**({} if name == "SaCo" else arguments(name)))(**given)
        assert scores == pytest.approx(expected[name], abs=2e-6), name
        assert len(set(scores)) > 1, name
        assert all(type(score) is float for score in scores)


def arguments(name: str) -> dict[str, Any]:
    shared = {"mean": MEAN, "std": STD}
    return shared | {"direction": name} if name in ("positive", "negative") else shared


@pytest.mark.parametrize("name", METRICS)
def test_batch_size_makes_no_difference(name: str, given: dict[str, Any]) -> None:
    metric = METRICS[name]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as out:
        warnings.simplefilter("error")
        all_at_once = metric(**given)
        for size in (1, 3):
            assert metric(**given, batch_size=size) == all_at_once
        alone = [metric(**{k: v if k == "model" else v[i : i + 1] for k, v in given.items()})[0] for i in range(4)]
    assert alone == all_at_once
    assert out.getvalue() == ""


def test_a_better_map_scores_better() -> None:
    """The class is the channel whose mean is highest, so that the pixels that matter are known."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    pixels = torch.full((2, 3, 10, 10), 0.3)
    pixels[:, 1, :4] = 0.9
    x, y = ((pixels - 0.5) / 0.25).numpy(), np.array([1, 1])
    good = (pixels[:, 1] > 0.5).float() + torch.rand(2, 10, 10) / 10
    for metric, better in (
        (PerturbationAUC(0.5, 0.25), min),
        (PerturbationAUC([0.5] * 3, [0.25] * 3, direction="negative"), max),
        (AOPC(0.5, 0.25), max),
        (LOdds(0.5, 0.25), min),
        (SaCo(groups=5), max),
    ):
        scores = [metric(model=model, x_batch=x, y_batch=y, a_batch=a.numpy()) for a in (good, 2 - good)]
        for one, other in zip(*scores, strict=True):
            assert one != other
            assert better(one, other) == one, metric.name
        assert (metric.score_direction == ScoreDirection.HIGHER) == (better is max)
        assert metric.evaluation_category == EvaluationCategory.FAITHFULNESS


def test_in_quantus_evaluate(given: dict[str, Any]) -> None:
    a = given["a_batch"]
    metrics = {"AUC": PerturbationAUC(MEAN, STD), "LOdds": LOdds(MEAN, STD)}
    found = quantus.evaluate(
        metrics=metrics,
        xai_methods={"given": a},
        model=given["model"],
        x_batch=given["x_batch"],
        y_batch=given["y_batch"],
        agg_func=lambda scores: scores,
    )
    assert found["given"]["AUC"] == METRICS["positive"](**given)
    assert found["given"]["LOdds"] == METRICS["LOdds"](**given)


@pytest.mark.parametrize("name", METRICS)
def test_a_single_class_decides_nothing(name: str, given: dict[str, Any]) -> None:
    model = timm.create_model("vit_tiny_patch16_224", **TINY | {"num_classes": 1}).eval()
    with pytest.raises(ValueError, match="a model with a single class always chooses it"):
        METRICS[name](**given | {"model": model, "y_batch": np.zeros(4, dtype=int)})


def test_names_and_bad_input(given: dict[str, Any]) -> None:
    assert [metric.name for metric in METRICS.values()] == [
        "Positive Perturbation AUC",
        "Negative Perturbation AUC",
        "AOPC",
        "LOdds",
        "SaCo",
    ]
    with pytest.raises(ValueError, match="direction must be 'positive' or 'negative', not 'up'"):
        PerturbationAUC(MEAN, STD, "up")
    with pytest.raises(ValueError, match="leave out softmax=True"):
        METRICS["AOPC"](**given, softmax=True)
    with pytest.raises(ValueError, match="AOPC: model"):
        METRICS["AOPC"](**given | {"model": None})
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        AOPC(0, 1)(**given)
    with pytest.raises(ValueError, match="Unexpected keyword"):
        AOPC(0, 1, percentile=3)
