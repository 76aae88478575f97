"""Models that end in a softmax, or have one output: scored rightly or refused, never perfect."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_astro.metrics.declaration import Given
from captum_astro.metrics.perturbation import class_probability
from captum_astro.metrics.perturber import Perturber
from captum_astro.metrics.registry import all_metrics
from tests.metrics.test_perturber import normaliser, tiny

RUNS_THE_MODEL = [
    name
    for name, metric in all_metrics().items()
    if any("logits" in need for need in metric.needs) and not metric.of_model
]


def test_a_softmax_is_taken_once() -> None:
    model, normalise = tiny(torch.float64), normaliser(torch.float64)
    pixels, maps = torch.rand(2, 3, 32, 32, dtype=torch.float64), torch.rand(2, 32, 32, dtype=torch.float64)
    plain, ending = (
        Perturber(model, normalise, steps=4),
        Perturber(nn.Sequential(model, nn.Softmax(-1)), normalise, steps=4),
    )
    ending.model.eval()
    classes = torch.tensor([3, 5])
    for a, b in zip(
        plain.curves(pixels, maps, plain.untouched(pixels)),
        ending.curves(pixels, maps, ending.untouched(pixels)),
        strict=True,
    ):
        assert torch.allclose(class_probability(a, classes), class_probability(b, classes), rtol=1e-9)


def test_certain_probabilities_stay_finite() -> None:
    engine = Perturber(lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2), lambda x: x, steps=2)
    found = class_probability(engine.untouched(torch.rand(3, 3, 4, 4))[:, None], torch.tensor([0, 1, 0]))
    assert found.flatten().tolist() == pytest.approx([1, 0, 1], abs=1e-30)


def test_no_image_shows_no_softmax() -> None:
    engine = Perturber(lambda x: x.mean((2, 3)).softmax(1), lambda x: x, steps=2)
    assert engine.untouched(torch.rand(0, 3, 4, 4)).shape == (0, 3)
    assert engine.untouched(torch.rand(1, 3, 4, 4)).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_logits_are_left_alone() -> None:
    logits = torch.tensor([[0.3, 0.7], [2.0, 1.0]])  # the first row alone would be a distribution
    engine = Perturber(lambda x: logits, lambda x: x, steps=2)
    assert torch.equal(engine.untouched(torch.rand(2, 3, 4, 4)), logits)


@pytest.mark.parametrize("name", RUNS_THE_MODEL)
def test_one_output_has_no_score(name: str) -> None:
    metric = all_metrics()[name]
    curves = {need: torch.zeros(1, 3, 1) for need in metric.needs if need.endswith("_logits")}
    given = Given(
        maps=torch.rand(1, 8, 8),
        pixels=torch.rand(1, 3, 8, 8),
        classes=torch.tensor([0]),
        labels=torch.tensor([0]),
        logits=torch.zeros(1, 1),
        probability=lambda pictures, owners: torch.ones(len(pictures)),
        answers=lambda pictures, owners: torch.ones(len(pictures), 1),
        explain=lambda pictures, owners: pictures.mean(1),
        **curves,
    )
    found = metric.scores(given, 1)
    assert found.values.isnan().all()
    assert found.reasons == ["the model has only one class"]
