from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.attr._propagation import InputTimesGradient, PropagationAttribution
from captum_astro.models.astromorphic_text import AstromorphicTextClassifier
from tests.families import build, images


class NoRules(nullcontext[None]):
    """Operations as they are."""

    constants = None


class Plain(InputTimesGradient):
    """Without rules: input times gradient, from autograd."""

    def _mode(self, call: Any) -> Any:
        return NoRules()


class Gradient(Plain):
    """The propagated relevance, not multiplied by the input."""

    _times_input = False

    def attribute(self, inputs: Any, target: Any = None, **given: Any) -> Any:
        return self._relevance(inputs, target, {"attribute_to": "tokens"}, "logit", torch.float32)


def _entering(model: nn.Module, inputs: torch.Tensor, score: Any) -> torch.Tensor:
    """The input of the first block times its gradient, summed over the channels."""
    kept: list[torch.Tensor] = []
    handle = model.blocks[0].register_forward_pre_hook(lambda m, a: kept.append(a[0]))
    total = score(model(inputs)).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(total, kept)
    return (gradient * kept[0].detach()).sum(-1)


@pytest.mark.parametrize("name", ["cls", "registers", "rectangular"])
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_every_variant_matches_autograd(name: str, output: Any) -> None:
    model, x = build(name), images(name)

    def score(logits: torch.Tensor) -> torch.Tensor:
        return (logits if output == "logit" else logits.softmax(-1))[:, 3]

    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(model(leaf)).sum(), leaf)
    found = {
        form: Plain(model).attribute(x, target=3, output=output, attribute_to=form)
        for form in ("input", "pixels", "grid", "tokens")
    }
    exact = {"rtol": 1e-9, "atol": 1e-13}
    torch.testing.assert_close(found["input"], gradient * x, **exact)
    torch.testing.assert_close(found["pixels"], (gradient * x).sum(1, keepdim=True), **exact)
    torch.testing.assert_close(found["tokens"], _entering(model, x, score), **exact)
    assert found["grid"].shape == (3, 1, x.shape[2] // 8, x.shape[3] // 8)
    assert torch.equal(found["grid"].flatten(1), found["tokens"][:, model.num_prefix_tokens :])
    assert all(form.is_contiguous() for form in found.values())


def test_parts_tuples_and_arguments() -> None:
    model, x = build("cls"), images("cls")
    targets = [0, 3, 1]
    whole = Plain(model).attribute(x, target=targets)
    torch.testing.assert_close(Plain(model).attribute(x, target=targets, internal_batch_size=2), whole)
    (one,) = Plain(model).attribute((x,), target=targets)
    assert torch.equal(one, whole)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, image: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
            return self.inner(image) * factor[:, None]

    factors = torch.tensor([1.0, 2, -3], dtype=torch.float64)
    found = Plain(Scaled()).attribute(x, target=targets, additional_forward_args=factors, internal_batch_size=2)
    torch.testing.assert_close(found, whole * factors[:, None, None, None])


def test_a_half_precision_model() -> None:
    """If relevance itself is propagated, the model runs in float32; the result has the input's dtype."""
    half, x = build("cls", torch.bfloat16), images("cls", dtype=torch.bfloat16)
    wide = build("cls", torch.bfloat16).float()
    found = Gradient(half).attribute(x, target=1)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, Gradient(wide).attribute(x.float(), target=1).bfloat16())
    assert Plain(half).attribute(x, target=1).dtype == torch.bfloat16


def test_a_text() -> None:
    model = AstromorphicTextClassifier(num_classes=2, vocabulary=9, dim=8, num_heads=2, depth=1, length=6)
    model = model.double().eval()
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    expected = _entering(model, ids, lambda logits: logits[:, 1])
    for form in ("input", "tokens"):
        found = Plain(model).attribute(ids, target=1, attribute_to=form)
        assert found.dtype == torch.float64  # of the model's, as the ids are whole numbers
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_a_model_without_a_layout() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    model, x = nn.Sequential(*layers).double().eval(), images("cls")
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)
    torch.testing.assert_close(Plain(model).attribute(x, target=3), gradient * x, rtol=1e-10, atol=0)
    found = Plain(model).attribute(x, target=3, attribute_to="pixels")
    torch.testing.assert_close(found, (gradient * x).sum(1, keepdim=True), rtol=1e-10, atol=0)
    for form in ("grid", "tokens"):
        with pytest.raises(UnsupportedModelError, match=f"'{form}' needs a layout.*'pixels' work.*has no layout"):
            Plain(model).attribute(x, target=3, attribute_to=form)


class Deaf(nn.Module):
    """Runs the model, and returns something else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build("cls")
        self.answer = nn.Parameter(torch.zeros(1, 5, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inner(x)
        return self.answer.expand(len(x), -1)


def test_bad_input() -> None:
    model, x = build("cls"), images("cls")
    with pytest.raises(NotImplementedError):
        InputTimesGradient(model).attribute(x, target=1)
    with pytest.raises(NotImplementedError):
        PropagationAttribution(model)._mode(None)
    with pytest.raises(UnsupportedModelError, match="does not depend on the image by a gradient"):
        Plain(Deaf()).attribute(x, target=1)
    with pytest.raises(ValueError, match="output must be 'probability' or 'logit', not 'odds'"):
        Plain(model).attribute(x, target=1, output="odds")
    with pytest.raises(ValueError, match=r"attribute_to must be 'input'.*not 'patches'"):
        Plain(model).attribute(x, target=1, attribute_to="patches")
    with pytest.raises(IndexError, match="out of range"):
        Plain(model).attribute(x, target=5)
