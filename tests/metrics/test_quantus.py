from __future__ import annotations

import contextlib
import io
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from quantus.helpers.enums import DataType, EvaluationCategory, ModelType, ScoreDirection

from captum_astro import VTranM
from captum_astro.metrics import alignment
from captum_astro.metrics.quantus import (
    DiceAlignment,
    HumanAlignment,
    IoUAlignment,
    SpearmanAlignment,
    SSIMAlignment,
    TensorMetric,
)
from tests.families import build, images

FUNCTIONS: dict[type[HumanAlignment], Callable[..., torch.Tensor]] = {
    SpearmanAlignment: alignment.spearman,
    DiceAlignment: alignment.dice,
    IoUAlignment: alignment.iou,
    SSIMAlignment: alignment.ssim,
}


def explain(model: torch.nn.Module, inputs: Any, targets: Any, **kwargs: Any) -> np.ndarray:
    x, y = torch.as_tensor(inputs), torch.as_tensor(targets)
    # one image at a time: a batch's rounding may move a pixel over a percentile
    return VTranM(model).attribute(x, target=y, internal_batch_size=1).mean(1, keepdim=True).numpy()


def brightness(model: torch.nn.Module, inputs: np.ndarray, targets: Any) -> np.ndarray:
    return inputs.mean(1, keepdims=True)


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """A model, images, classes and human maps that are neither 0 nor 1 only."""
    x = images("cls", batch=5, dtype=torch.float32)
    human = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 9, 1, 4)
    return {
        "model": build("cls", torch.float32),
        "x_batch": x.numpy(),
        "y_batch": np.array([0, 1, 2, 3, 4]),
        "s_batch": human.numpy(),
    }


@pytest.mark.parametrize("metric", FUNCTIONS)
def test_end_to_end(metric: type[HumanAlignment], given: dict[str, Any]) -> None:
    a = explain(given["model"], given["x_batch"], given["y_batch"])
    maps, human = torch.from_numpy(a), torch.from_numpy(given["s_batch"])
    expected = FUNCTIONS[metric](maps, human).tolist()
    assert len(set(expected)) > 1
    options: dict[str, Any] = {"chunk": 2}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as out:
        warnings.simplefilter("error")
        for size, human_shape in itertools.product((1, 2, 5, 64), ((5, 1, 32, 32), (5, 32, 32))):
            call = given | {"s_batch": given["s_batch"].reshape(human_shape), "batch_size": size}
            assert metric()(**call, a_batch=a) == pytest.approx(expected, abs=1e-14)
            assert metric()(**call, a_batch=a[:, 0]) == pytest.approx(expected, abs=1e-14)
        for size in (1, 2, 64):
            call = given | {"batch_size": size, "explain_func": explain, "explain_func_kwargs": options}
            assert metric()(**call, device="cpu") == pytest.approx(expected, abs=1e-3)
        one, two, everything = (metric()(**given, explain_func=brightness, batch_size=size) for size in (1, 2, 64))
        assert one == pytest.approx(two, abs=1e-15)
        assert one == pytest.approx(everything, abs=1e-15)
    assert out.getvalue() == ""
    assert options == {"chunk": 2}
    scores = metric()(**given, a_batch=np.repeat(a, 3, 1))
    assert scores == pytest.approx(expected, abs=1e-6)
    assert all(type(score) is float for score in scores)
    assert metric()(**given | {"model": None, "s_batch": human}, a_batch=a) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("metric", FUNCTIONS)
def test_the_options_of_quantus(metric: type[HumanAlignment], given: dict[str, Any]) -> None:
    a = explain(given["model"], given["x_batch"], given["y_batch"])
    a = a - np.median(a, axis=(2, 3), keepdims=True)
    plain = metric()(**given, a_batch=a)
    assert metric(normalise=True)(**given, a_batch=a.astype(np.float64)) == pytest.approx(plain, abs=1e-12)
    assert metric(return_aggregate=True)(**given, a_batch=a) == pytest.approx([np.mean(plain)])
    assert metric(return_aggregate=True, aggregate_func=max)(**given, a_batch=a) == [max(plain)]
    assert metric(abs=True)(**given, a_batch=a) == pytest.approx(metric()(**given, a_batch=np.abs(a)))
    with pytest.raises(ValueError, match="Unexpected keyword"):
        metric(percentiles=3)
    assert isinstance(metric().name, str)
    assert metric.data_applicability == {DataType.IMAGE}
    assert metric.model_applicability == {ModelType.TORCH}
    assert metric.score_direction == ScoreDirection.HIGHER
    assert metric.evaluation_category == EvaluationCategory.LOCALISATION
    with contextlib.redirect_stdout(io.StringIO()) as out:
        metric().interpret_scores()
    assert "higher is better" in out.getvalue()


def test_each_map_is_normalised_separately(given: dict[str, Any]) -> None:
    seen = []

    class Largest(TensorMetric):
        name = "Largest"
        evaluation_category = EvaluationCategory.NONE

        def scores(self, maps: torch.Tensor, target: torch.Tensor | None, **kwargs: Any) -> torch.Tensor:
            assert target is None
            seen.append(sorted(kwargs))
            return maps.abs().amax((1, 2))

    scale = np.array([1.0, 10, 0, 1000, 0.1]).reshape(5, 1, 1, 1)
    a = explain(given["model"], given["x_batch"], given["y_batch"]) * scale
    call = given | {"s_batch": None, "a_batch": a, "batch_size": 2}
    assert Largest(normalise=True)(**call) == pytest.approx([1, 1, 0, 1, 1])
    assert Largest()(**call) == pytest.approx(np.abs(a).max((1, 2, 3)).tolist())
    assert seen == [["model", "x_batch", "y_batch"]] * 6


def test_its_own_keyword(given: dict[str, Any]) -> None:
    a = explain(given["model"], given["x_batch"], given["y_batch"])
    maps, human = torch.from_numpy(a), torch.from_numpy(given["s_batch"])
    for metric, key, value in ((DiceAlignment, "percentile", 60.0), (IoUAlignment, "percentile", 60.0),
                               (SSIMAlignment, "window", 11)):  # fmt: skip
        scores = metric(**{key: value})(**given, a_batch=a)
        assert scores == pytest.approx(FUNCTIONS[metric](maps, human, value).tolist(), abs=1e-14)
        assert scores != pytest.approx(metric()(**given, a_batch=a))


def test_in_quantus_evaluate(given: dict[str, Any]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        found = quantus.evaluate(
            metrics={"Spearman": SpearmanAlignment(), "Dice": DiceAlignment()},
            xai_methods={"VTranM": explain},
            explain_func_kwargs={},
            **given,
        )
    a = explain(given["model"], given["x_batch"], given["y_batch"])
    assert found["VTranM"]["Spearman"] == pytest.approx(SpearmanAlignment()(**given, a_batch=a), abs=1e-6)
    assert found["VTranM"]["Dice"] == pytest.approx(DiceAlignment()(**given, a_batch=a), abs=1e-6)


def test_bad_input_is_named(given: dict[str, Any]) -> None:
    a = explain(given["model"], given["x_batch"], given["y_batch"])
    with pytest.raises(ValueError, match="Dice alignment: s_batch is missing; pass"):
        DiceAlignment()(**given | {"s_batch": None}, a_batch=a)
    with pytest.raises(ValueError, match="Dice alignment: s_batch is missing; pass"):
        DiceAlignment().evaluate_batch(a)
    with pytest.raises(ValueError, match=r"maps \(5, 32, 32\) and human \(5, 16, 32\)"):
        DiceAlignment()(**given | {"s_batch": given["s_batch"][:, :, ::2]}, a_batch=a)
    with pytest.raises(ValueError, match="percentile"):
        DiceAlignment(percentile=100)(**given, a_batch=a)
    spoilt = a.copy()
    spoilt[2, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"maps: NaN or infinite values at \[2\]"):
        SpearmanAlignment()(**given, a_batch=spoilt)
