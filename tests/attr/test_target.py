"""What Captum's users and tools expect, generated over every exported method."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from captum_astro import (
    LRP,
    AttnLRP,
    ConservativeLRP,
    TransformerAttribution,
    VTranM,
    explainers,
)
from captum_astro.attr._target import chosen_scores, explained_positions, output_seed
from tests.families import build, images

METHODS = [explainer.method for explainer in explainers()]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


OWN_TARGET = {"ViTAGradCAM", "ViTAGradCAMPlusPlus"}  # None is the unmodulated model's first choice
MIXED = torch.tensor([1, 3, 0])
TARGET = 3


@every_method
def test_targets(method: Any) -> None:
    model, x = build("cls"), images("cls")
    explain = method(model).attribute
    ones = explain(x, target=1)
    for same in (torch.tensor(1), torch.tensor([1]), [1, 1, 1], torch.tensor([1, 1, 1]), (1,), [(1,)] * 3, -4):
        torch.testing.assert_close(explain(x, target=same), ones)
    mixed = explain(x, target=MIXED)
    torch.testing.assert_close(explain(x, target=MIXED.tolist()), mixed)
    if explainers()[METHODS.index(method)].needs_gradient:
        assert not torch.allclose(mixed[0], mixed[1])
        for wrong in (5, -6, [0, 1, 5], torch.tensor([0, 1, 5])):
            with pytest.raises(IndexError, match="out of range"):
                explain(x, target=wrong)
        for wrong in (
            *([] if method.__name__ in OWN_TARGET else [None]),
            np.int64(1),
            [0, 1],
            torch.tensor([[0], [1], [2]]),
            True,
            "tabby",
        ):
            with pytest.raises(AssertionError):
                explain(x, target=wrong)


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = build("cls")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.model(x)
        return torch.stack([logits, logits * 2], 1)


@pytest.mark.parametrize("method", [LRP, TransformerAttribution, AttnLRP, ConservativeLRP], ids=lambda m: m.__name__)
def test_targets_of_more_dimensions(method: Any) -> None:
    pairs, x = Pairs().eval(), images("cls")
    expected = method(pairs.model).attribute(x, target=TARGET)
    torch.testing.assert_close(method(pairs).attribute(x, target=(0, TARGET)), expected)
    torch.testing.assert_close(method(pairs).attribute(x, target=[(0, TARGET)] * 3), expected)


def test_a_sure_model_still_has_a_gradient() -> None:
    """In float32 p (1 - p) is 0 for a margin of 20; the map must be the one of a float64 model."""
    model, x = build("cls"), images("cls")
    with torch.no_grad():
        model.head.bias[1] += 25
    exact = VTranM(model).attribute(x, target=1, components=(), attribute_to="tokens")[:, 1:]
    single = VTranM(model.float()).attribute(x.float(), target=1, components=(), attribute_to="tokens")[:, 1:]
    assert exact.abs().max() > 0
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-4 * float(exact.max()))


FORMS = [(2, [2, 2]), ([2, 0], [2, 0]), (torch.tensor([1, 2]), [1, 2]), (torch.tensor(-1), [3, 3]), ((1,), [1, 1])]


@pytest.mark.parametrize(("target", "classes"), FORMS)
def test_the_seed_of_a_logit(target: Any, classes: list[int]) -> None:
    output = torch.randn(2, 4)
    seed = output_seed(output, target, "logit")
    assert seed.gradient.dtype == torch.float64
    assert torch.equal(seed.gradient, torch.eye(4, dtype=torch.float64)[classes])
    assert torch.equal(seed.full(), seed.gradient)
    assert torch.equal(chosen_scores(output, target), output[[0, 1], classes])


@pytest.mark.parametrize(("shape", "target"), [((2, 4), [2, 0]), ((2, 3, 4), [(1, 2), (0, 3)]), ((2, 3, 4), (2, 0))])
def test_the_seed_of_a_probability_is_its_gradient(shape: tuple[int, ...], target: Any) -> None:
    output = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    chosen = [target] * 2 if isinstance(target, tuple) else target
    probability = output.softmax(-1)
    total = sum(probability[b][one] for b, one in enumerate(chosen))
    (expected,) = torch.autograd.grad(total, output)
    seed = output_seed(output, target, "probability")
    torch.testing.assert_close(seed.full(), expected, rtol=1e-12, atol=1e-15)
    assert seed.gradient.flatten(1).abs().amax(1).tolist() == [1, 1]


def test_nothing_cancels_where_a_class_is_certain() -> None:
    small = math.exp(-40)
    for logits, scale in (([40.0, 0, 0], 2 * small / (1 + 2 * small) ** 2), ([0.0, 40, 0], None)):
        seed = output_seed(torch.tensor([logits]), 0, "probability")
        p = 1 / (2 + math.exp(40))  # of class 0 in the second
        assert seed.scale.item() == pytest.approx(p * (1 - p) if scale is None else scale, rel=1e-12)
    seed = output_seed(torch.tensor([[40.0, 0, 0]]), 0, "probability")
    torch.testing.assert_close(seed.gradient, torch.tensor([[1, -0.5, -0.5]], dtype=torch.float64))


def test_explained_positions() -> None:
    output = torch.randn(2, 3, 4, dtype=torch.float64)
    assert explained_positions(output, [(1, 2), (-1, 0)]).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert explained_positions(output, (0, 3)).tolist() == [[1, 0, 0], [1, 0, 0]]
    with pytest.raises(IndexError, match="out of range"):
        explained_positions(output, (3, 0))


def test_a_model_with_one_output() -> None:
    one = torch.randn(3, 1)
    assert torch.equal(chosen_scores(one, 0), one[:, 0])
    assert output_seed(one, 0, "logit").gradient.tolist() == [[1], [1], [1]]
    for output in (one, torch.randn(3)):
        with pytest.raises(ValueError, match="no softmax probability: pass output='logit'"):
            output_seed(output, 0, "probability")


def test_bad_input() -> None:
    output = torch.randn(2, 4)
    with pytest.raises(ValueError, match="output is 'probability' or 'logit', not 'odds'"):
        output_seed(output, 0, "odds")
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="output is not finite"):
            output_seed(torch.full((2, 4), value), 0, "logit")
    with pytest.raises(
        IndexError, match=r"target 4 is out of range: .*\(4,\) outputs a sample, so classes run from 0 to 3"
    ):
        chosen_scores(output, 4)
    with pytest.raises(AssertionError, match="Target type bool is not valid"):
        chosen_scores(output, True)
    with pytest.raises(AssertionError, match=r"gives \(4,\) outputs a sample; pass target="):
        chosen_scores(output, None)
    with pytest.raises(AssertionError):
        chosen_scores(output, "tabby")
