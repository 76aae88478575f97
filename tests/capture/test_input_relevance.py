"""The pass to the pixels, against PyTorch's own gradients where a mode has no rules."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.call import Call
from captum_astro.capture.input_relevance import propagate
from captum_astro.capture.target import Target
from captum_astro.models.astromorphic_text import AstromorphicTextClassifier
from tests.capture.making import call_of
from tests.families import build, images


def _none() -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_without_rules_it_is_the_gradient(output: Any) -> None:
    model, x = build("cls"), images("cls")
    entering: list[torch.Tensor] = []
    handle = model.blocks[0].register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    leaf = x.clone().requires_grad_(True)
    logits = model(leaf)
    scores = logits if output == "logit" else logits.softmax(1)
    to_image, to_tokens = torch.autograd.grad(scores[:, 2].sum(), [leaf, entering[0]])
    handle.remove()
    for times_input in (False, True):
        found = propagate(call_of(model, x, 2, output), _none(), times_input)
        assert found.image is not None
        assert found.tokens is not None
        factors = (x, entering[0].detach()) if times_input else (1, 1)
        torch.testing.assert_close(found.image, to_image * factors[0])
        torch.testing.assert_close(found.tokens, (to_tokens * factors[1]).sum(-1))
        assert found.score == pytest.approx(logits[:, 2].sum().item())
        assert found.image_size == x.shape[-2:]
        assert found.constants == ()


def test_a_small_probability_does_not_underflow() -> None:
    model, x = build("cls").float(), images("cls").float()
    model.head.bias.data[1] -= 80  # a probability of 1e-35, whose gradient is of that size
    found = propagate(call_of(model, x, 1, "probability"), _none(), times_input=False)
    assert found.image is not None
    assert found.image.ne(0).flatten(1).any(1).all()


def test_a_model_without_a_layout() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 2)).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found = propagate(Call(model, x, Target(1)), _none(), times_input=True)
    assert found.tokens is None
    assert found.image_size == (4, 5)
    assert found.image is not None
    weight = model[1].weight[1].detach().reshape(3, 4, 5)
    torch.testing.assert_close(found.image, x * weight)


def test_a_text_has_tokens_and_no_image() -> None:
    model = AstromorphicTextClassifier(vocabulary=20, num_classes=3, dim=8, num_heads=2, length=6).double().eval()
    tokens = torch.tensor([[5, 7, 2, 9], [1, 1, 3, 4]])
    found = propagate(call_of(model, tokens, 2), _none(), times_input=True)
    assert found.image is None
    assert found.tokens is not None
    assert found.tokens.shape == (2, 4)
    assert found.image_size == (1, 4)


def test_an_output_that_ignores_the_image_is_refused() -> None:
    class Ignores(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 2, dtype=x.dtype, requires_grad=True) * 1

    with pytest.raises(UnsupportedModelError):
        propagate(Call(Ignores(), torch.ones(2, 3, 4, 4), Target(1)), _none(), times_input=True)


def test_a_first_block_that_does_not_run_or_runs_twice_is_refused() -> None:
    model, x = build("cls"), images("cls")
    call = call_of(model, x)
    first = model.blocks[0]
    model.blocks[0] = nn.Identity()
    with pytest.raises(UnsupportedModelError, match=r"The first block of .* did not run, or not as"):
        propagate(call, _none(), times_input=True)
    model.blocks = nn.Sequential(first, first)
    with pytest.raises(UnsupportedModelError, match="was called 2 times in one pass"):
        propagate(call, _none(), times_input=True)
