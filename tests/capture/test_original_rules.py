"""LRP's first rules in the backward pass of a small model, against the equations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_astro.capture.original_rules import OriginalRelevance
from captum_astro.capture.relevance_rules import Relevance


class Residual(nn.Module):
    """``x + fc(x)``, then a linear map of the flattened image, all in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Linear(4, 4).double(), nn.Linear(4, 3).double()
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.inner(x))


def _relevance(rules: type[Relevance], model: nn.Module, x: torch.Tensor, target: int) -> torch.Tensor:
    given = x.clone().requires_grad_()
    with rules(model, len(x), from_pixels=False):
        output = model(given)
    (found,) = torch.autograd.grad(output, given, torch.eye(3, dtype=torch.float64)[[target] * len(x)])
    return found


def _linear(layer: nn.Linear, x: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """Each sign by itself, one weight at a time."""
    found = torch.zeros_like(x)
    for j, weight in enumerate(layer.weight):
        for sign in (1, -1):
            parts = [(sign * x[i]).clamp(min=0) * (sign * weight[i]).clamp(min=0) for i in range(len(x))]
            total = sum(parts)
            for i, part in enumerate(parts):
                if total > 0:
                    found[i] += part / total * relevance[j]
    return found


def _expected(model: Residual, x: torch.Tensor, target: int) -> torch.Tensor:
    inner = model.inner(x)
    summed = x + inner
    at_sum = _linear(model.head, summed, torch.eye(3, dtype=torch.float64)[target])
    share = at_sum / summed
    return x * share + _linear(model.inner, x, inner * share)


@pytest.mark.parametrize("target", [0, 2])
def test_the_backward_pass_is_the_equations(target: int) -> None:
    model, x = Residual(), torch.randn(3, 4, dtype=torch.float64)
    found = _relevance(OriginalRelevance, model, x, target)
    for image, one in zip(x, found, strict=True):
        torch.testing.assert_close(one, _expected(model, image, target), rtol=1e-8, atol=1e-10)


def test_images_do_not_change_each_other() -> None:
    model, x = Residual(), torch.randn(3, 4, dtype=torch.float64)
    together = _relevance(OriginalRelevance, model, x, 1)
    alone = torch.cat([_relevance(OriginalRelevance, model, one[None], 1) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_the_later_rules_are_others() -> None:
    model, x = Residual(), torch.randn(3, 4, dtype=torch.float64)
    later = _relevance(Relevance, model, x, 1)
    assert not torch.allclose(later, _relevance(OriginalRelevance, model, x, 1))
    torch.testing.assert_close(later.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-8, atol=0)  # these conserve


def test_the_output_is_the_model_s() -> None:
    model, x = Residual(), torch.randn(3, 4, dtype=torch.float64)
    with OriginalRelevance(model, 3, from_pixels=False):
        found = model(x.requires_grad_())
    assert torch.equal(found.detach(), model(x).detach())
