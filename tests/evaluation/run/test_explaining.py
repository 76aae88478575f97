from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.batches import Batch
from captum_astro.evaluation.run.explaining import NOT_FINITE, Explaining
from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.maps import Maps
from captum_astro.evaluation.specification.methods import methods_of
from captum_astro.models.loading import load_model
from tests.evaluation import making

BOTH = ("predicted", "true")


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return load_model(making.NAME, pretrained=False)


def _explaining(model: torch.nn.Module, methods: str) -> Explaining:
    return Explaining(model, methods_of(methods), ModelTransform(model, "none"), 8, 0)


def _batch(predicted: list[int], labels: list[int | None]) -> Batch:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(len(labels), 3, 32, 32, generator=generator)
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 10).float()
    return Batch(pixels, logits, predicted, labels, [None] * len(labels), [None] * len(labels))


def test_a_map_for_each_class_that_differs(model) -> None:
    batch = _batch([1, 2, 3], [1, 5, None])
    jobs, failures = _explaining(model, "VTranM,RawAttention")(batch, [0, 1, 2], BOTH)
    assert failures == {}
    assert [(job.method, job.image, job.classes) for job in jobs] == [
        ("VTranM", 0, {"predicted": 1, "true": 1}),
        ("VTranM", 1, {"predicted": 2}),
        ("VTranM", 2, {"predicted": 3}),
        ("VTranM", 1, {"true": 5}),
        ("RawAttention", 0, {"predicted": 1, "true": 1}),
        ("RawAttention", 1, {"predicted": 2, "true": 5}),
        ("RawAttention", 2, {"predicted": 3}),
    ]
    assert jobs[0].map.shape == (32, 32)
    assert not torch.equal(jobs[1].map, jobs[3].map)


def test_failure_is_recorded_per_image_and_class(model, monkeypatch) -> None:
    original = Maps.__call__

    def fails(self: Maps, inputs: torch.Tensor, target: Any, numbers: Any, at_once: int) -> Any:
        if 5 in target:
            raise RuntimeError("no class 5")
        found = original(self, inputs, target, numbers, at_once)
        found[[number == 7 for number in numbers]] = torch.nan
        return found

    monkeypatch.setattr(Maps, "__call__", fails)
    jobs, failures = _explaining(model, "VTranM")(_batch([1, 2, 3], [1, 5, 5]), [0, 7, 2], BOTH)
    assert [(job.image, job.classes) for job in jobs] == [(0, {"predicted": 1, "true": 1}), (2, {"predicted": 3})]
    assert failures == {
        ("VTranM", 1, "predicted"): NOT_FINITE,
        ("VTranM", 1, "true"): Failure("RuntimeError", "no class 5", "method"),
        ("VTranM", 2, "true"): Failure("RuntimeError", "no class 5", "method"),
    }


def test_method_that_cannot_be_built_fails_for_all(model, monkeypatch) -> None:
    def refuses(self: Maps, method: Any, model: Any, seed: int) -> None:
        raise TypeError("not with this model")

    with monkeypatch.context() as patched:
        patched.setattr(Maps, "__init__", refuses)
        explaining = _explaining(model, "VTranM")
    jobs, failures = explaining(_batch([1, 2], [1, None]), [0, 1], BOTH)
    assert jobs == []
    expected = [("VTranM", 0, "predicted"), ("VTranM", 0, "true"), ("VTranM", 1, "predicted")]
    assert failures == dict.fromkeys(expected, Failure("TypeError", "not with this model", "method"))
