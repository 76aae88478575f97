"""One class against others: the outputs by loops, and every method on them."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import nn

import captum_astro
from captum_astro import AttnLRP, ConservativeLRP, TokenGradCAM, VTranM, contrast_target
from captum_astro.attr.explainers import Explainer, explainers
from tests.families import FAMILIES


class Fixed(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits + 0 * x.sum()


LOGITS = [[0.5, -1.0, 3.0, 0.25], [40.0, -30.0, 0.0, 1.0], [900.0, 0.0, -900.0, 5.0]]


@pytest.mark.parametrize("against", ["others", 2, [2, 0], [1]])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_differences(against: Any, weight: float) -> None:
    found = contrast_target(Fixed(torch.tensor(LOGITS, dtype=torch.float64)), against, weight=weight)(torch.zeros(1))
    for row, logits in enumerate(LOGITS):
        for c, own in enumerate(logits):
            if against == "others":
                rest = [z for d, z in enumerate(logits) if d != c]
                other = max(rest) + math.log(sum(math.exp(z - max(rest)) for z in rest))
            else:
                rest = [logits[d] for d in ([against] if isinstance(against, int) else against) if d != c]
                other = sum(rest) / len(rest) if rest else 0.0
            assert found[row, c].item() == pytest.approx(own - weight * other, rel=1e-9, abs=1e-9)


def test_against_all_others_is_the_probability() -> None:
    logits = torch.tensor(LOGITS[:2], dtype=torch.float64)
    found = contrast_target(Fixed(logits), probabilities=True)(torch.zeros(1))
    assert torch.allclose(found, logits.softmax(1), rtol=1e-9)


def test_gradients_are_finite_where_a_class_is_certain() -> None:
    model = contrast_target(Fixed(torch.tensor(LOGITS)))
    for c in range(4):
        (gradient,) = torch.autograd.grad(model(torch.zeros(1))[:, c].sum(), model.model.logits)
        assert gradient.isfinite().all()
        assert torch.allclose(gradient[:, c], torch.ones(3))


@pytest.mark.parametrize("family", ["registers", "average", "post_norm", "eva"])
@pytest.mark.parametrize("method", [AttnLRP, ConservativeLRP, TokenGradCAM])
def test_linear_methods_give_the_difference_of_the_maps(family: str, method: Any) -> None:
    model = FAMILIES[family]().double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    options = {"relu_attributions": False} if method is TokenGradCAM else {}
    a, b = (method(model).attribute(x, target=c, **options) for c in (1, 3))
    found = method(contrast_target(model, against=3)).attribute(x, target=1, **options)
    assert torch.allclose(found, a - b, rtol=0, atol=1e-9 * float(a.abs().max()))


@pytest.mark.parametrize("explainer", explainers(), ids=lambda each: each.name)
def test_every_method_sees_the_contrast(explainer: Explainer) -> None:
    model, method = FAMILIES["registers"]().double(), explainer.method
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    options = {"output": "logit"} if "output" in inspect.signature(method.attribute).parameters else {}
    plain = method(model).attribute(x, target=1, **options)
    against = method(contrast_target(model, against=3)).attribute(x, target=1, **options)
    nothing = method(contrast_target(model, against=3, weight=0)).attribute(x, target=1, **options)
    spread = float(plain.max() - plain.min())  # GMAR's map is nearly constant
    assert torch.allclose(nothing, plain, rtol=0, atol=1e-9 * spread)
    if explainer.needs_gradient:
        assert not torch.allclose(against, plain, rtol=0, atol=1e-3 * spread)


def test_probabilities_of_differences_are_refused() -> None:
    model = FAMILIES["registers"]()
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match="pass output='logit', or probabilities=True"):
        VTranM(contrast_target(model, 3)).attribute(x, target=1)
    found = VTranM(contrast_target(model, probabilities=True)).attribute(x, target=1)
    assert torch.allclose(found, VTranM(model).attribute(x, target=1), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("wrong", ["class", [1.5], True, 2.0])
def test_wrong_classes(wrong: Any) -> None:
    with pytest.raises(TypeError, match="int"):
        captum_astro.contrast_target(FAMILIES["registers"](), wrong)


def test_classes_that_are_not_there() -> None:
    model = FAMILIES["registers"]()
    with pytest.raises(ValueError, match="against is empty"):
        contrast_target(model, [])
    with pytest.raises(IndexError, match="against 7 is out of range: classes run from 0 to 4"):
        contrast_target(model, 7)(torch.rand(1, 3, 32, 32))
    assert contrast_target(model.train()).training
    assert model.training


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "half", None])
def test_a_weight_is_a_finite_number(wrong: Any) -> None:
    with pytest.raises(ValueError, match="weight must be a number, not"):
        contrast_target(FAMILIES["registers"](), 3, weight=wrong)
