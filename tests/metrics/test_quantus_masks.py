from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from quantus.helpers.enums import EvaluationCategory, ScoreDirection

from captum_astro import VTranM
from captum_astro.metrics import localisation, segmentation, segmentation_ap
from captum_astro.metrics.quantus import (
    ROAD,
    AveragePrecision,
    EnergyInside,
    ExpectedPointingGame,
    MaskMetric,
    MeanIoU,
    PixelAccuracy,
    quantus_explain,
)
from tests.families import build, images

FUNCTIONS: dict[type[MaskMetric], Callable[..., torch.Tensor]] = {
    PixelAccuracy: segmentation.pixel_accuracy,
    MeanIoU: segmentation.mean_iou,
    AveragePrecision: segmentation_ap.average_precision,
    ExpectedPointingGame: localisation.pointing_game,
    EnergyInside: localisation.energy_inside,
}


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    x = images("cls", batch=5, dtype=torch.float32)
    masks = (torch.nn.functional.avg_pool2d(x.mean(1), 9, 1, 4) > 0).long()
    masks[:, :3] = -1
    model = build("cls", torch.float32)
    y = np.array([0, 1, 2, 3, 4])
    maps = quantus_explain(VTranM)(model, x.numpy(), y)
    return {"model": model, "x_batch": x.numpy(), "y_batch": y, "a_batch": maps, "s_batch": masks.numpy()}


@pytest.mark.parametrize("metric", FUNCTIONS)
def test_over_the_functions(metric: type[MaskMetric], given: dict[str, Any]) -> None:
    expected = FUNCTIONS[metric](torch.from_numpy(given["a_batch"]), torch.from_numpy(given["s_batch"])).tolist()
    assert metric is ExpectedPointingGame or len(set(expected)) > 1
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for size in (1, 2, 5, 64):
            assert metric()(**given, batch_size=size) == pytest.approx(expected, abs=1e-14)
        masks = given["s_batch"][:, None]
        assert metric()(**given | {"s_batch": masks.astype(np.int8), "model": None}) == pytest.approx(expected)
        again = metric()(**given | {"a_batch": None}, explain_func=quantus_explain(VTranM), batch_size=2)
        assert again == pytest.approx(expected, abs=1e-3)
    assert out.getvalue() == ""
    assert metric(return_aggregate=True)(**given) == pytest.approx([np.mean(expected)])
    assert metric.score_direction == ScoreDirection.HIGHER
    assert metric.evaluation_category == EvaluationCategory.LOCALISATION


@pytest.mark.parametrize("metric", FUNCTIONS)
def test_bad_input_is_named(metric: type[MaskMetric], given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{metric.name}: s_batch is missing; pass the masks \(1 object"):
        metric()(**given | {"s_batch": None})
    with pytest.raises(ValueError, match=r"masks: 1 \(object\)"):
        metric()(**given | {"s_batch": given["s_batch"] * 3})
    with pytest.raises(ValueError, match="differ in shape"):
        metric()(**given | {"s_batch": given["s_batch"][:, ::2]})


def test_quantus_agrees_where_it_works(given: dict[str, Any]) -> None:
    masks = (given["s_batch"] == 1).astype(int)[:, None]
    call = given | {"s_batch": masks, "a_batch": np.abs(given["a_batch"])}
    quiet = {"disable_warnings": True}
    ties = ExpectedPointingGame()(**call)
    assert any(0 < score < 1 for score in ties)  # the corners of bilinear maps are flat
    call["a_batch"] = call["a_batch"] * (1 + np.random.default_rng(0).random(call["a_batch"].shape))
    hits = quantus.PointingGame(**quiet)(**call)
    assert len(set(hits)) > 1
    assert ExpectedPointingGame()(**call) == [float(hit) for hit in hits]
    mass = quantus.RelevanceMassAccuracy(**quiet)(**call)
    assert EnergyInside()(**call) == pytest.approx([float(score) for score in mass], abs=1e-5)


class Brightest(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def _blobs() -> dict[str, Any]:
    """Channel i of image i is bright in one corner."""
    x = np.random.default_rng(0).random((3, 3, 16, 20), dtype=np.float32) * 0.02
    for i in range(3):
        x[i, i, 2:6, 3:8] += 1
    a = x.sum(1, keepdims=True)
    return {"model": Brightest().eval(), "x_batch": x, "y_batch": np.arange(3), "a_batch": a}


def test_road_detects_important_pixels() -> None:
    given = _blobs()
    best = []
    for seed in range(20):  # without its blob an image is noise: one of the three classes by chance
        road = ROAD(percentages=[1, 10, 50], seed=seed)
        scores = road(**given)
        assert list(road.accuracy) == [1, 10, 50]
        assert np.mean(scores) == pytest.approx(np.mean(list(road.accuracy.values())))
        best.append(list(road.accuracy.values()))
    np.testing.assert_allclose(np.mean(best, 0), [1, 1 / 3, 1 / 3], atol=0.15)
    worst = ROAD(percentages=[1, 10, 50])
    assert worst(**given | {"a_batch": 1 - given["a_batch"]}) == [1, 1, 1]
    assert worst.accuracy == {1: 1, 10: 1, 50: 1}


def test_road_on_batches_of_any_size_and_again(given: dict[str, Any]) -> None:
    call = {name: value for name, value in given.items() if name != "s_batch"}
    y = torch.from_numpy(given["x_batch"])
    call["y_batch"] = given["model"](y).argmax(1).numpy()
    made = ROAD(percentages=[5, 20, 60], noise=0.3)
    scores = made(**call)
    accuracy = made.accuracy
    assert len(set(scores)) > 1
    assert np.mean(list(accuracy.values())) == pytest.approx(np.mean(scores))
    for size in (1, 2, 3):
        assert made(**call, batch_size=size) == scores
        assert made.accuracy == accuracy
    assert made(**call | {"a_batch": np.repeat(given["a_batch"], 3, 1)}) == scores
    assert made.score_direction == ScoreDirection.LOWER


def test_road_removes_pixels_with_all_their_channels() -> None:
    given = _blobs()
    seen: list[torch.Tensor] = []
    handle = given["model"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    ROAD(percentages=[10, 50, 90])(**given)
    handle.remove()
    for pictures, percentage in zip(seen, (10, 50, 90), strict=True):
        changed = (pictures.numpy() != given["x_batch"]).sum(1)
        assert set(np.unique(changed)) <= {0, 3}
        assert (changed == 3).sum((1, 2)).tolist() == [int(320 * percentage / 100)] * 3


def test_road_is_quantus_own_on_one_channel() -> None:
    given = _blobs()
    grey = given | {"x_batch": given["x_batch"].sum(1, keepdims=True), "model": Threshold().eval(), "y_batch": [1] * 3}
    percentages = [2, 5, 10, 30]
    theirs = quantus.ROAD(percentages=percentages, noise=0, disable_warnings=True)(**grey, batch_size=3)
    ours = ROAD(percentages=percentages, noise=0)
    ours(**grey, batch_size=2)
    assert ours.accuracy == pytest.approx(theirs)
    assert len(set(ours.accuracy.values())) > 1


class Threshold(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([torch.full_like(mean, 0.07), mean], 1)


def test_road_names_bad_input() -> None:
    for percentages in ([], [0], [10, 100]):
        with pytest.raises(ValueError, match="percentages: some numbers above 0 and below 100"):
            ROAD(percentages=percentages)
    with pytest.raises(ValueError, match="ROAD: a model is needed"):
        ROAD()(**_blobs() | {"model": None})
    given = _blobs()
    given["a_batch"][1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="ROAD: a map has NaN"):
        ROAD()(**given)
