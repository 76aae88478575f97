"""Captum's interface and tools, tested over every exported method."""

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
from captum_astro.capture.target import LargestOutput, Target
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
            1.0,
            [1.0, 2.0, 3.0],
            torch.tensor([1.0, 2.0, 3.0]),
            torch.tensor([True, False, True]),
            np.array([1, 2, 3]),
            "tabby",
        ):
            message = "pass target=" if wrong is None else "The target must be a class as an int"
            with pytest.raises(AssertionError, match=message):
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


def test_certain_model_still_has_a_gradient() -> None:
    """In float32 p (1 - p) is 0 for a margin of 20; the map must equal that of a float64 model."""
    model, x = build("cls"), images("cls")
    with torch.no_grad():
        model.head.bias[1] += 25
    exact = VTranM(model).attribute(x, target=1, components=(), attribute_to="tokens")[:, 1:]
    single = VTranM(model.float()).attribute(x.float(), target=1, components=(), attribute_to="tokens")[:, 1:]
    assert exact.abs().max() > 0
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-4 * float(exact.max()))


FORMS = [(2, [2, 2]), ([2, 0], [2, 0]), (torch.tensor([1, 2]), [1, 2]), (torch.tensor(-1), [3, 3]), ((1,), [1, 1])]


@pytest.mark.parametrize(("target", "classes"), FORMS)
def test_gradient_seed_of_a_logit(target: Any, classes: list[int]) -> None:
    output = torch.randn(2, 4)
    seed = Target(target).seed(output)
    assert seed.gradient.dtype == torch.float64
    assert torch.equal(seed.gradient, torch.eye(4, dtype=torch.float64)[classes])
    assert torch.equal(seed.full(), seed.gradient)
    assert torch.equal(Target(target).scores(output), output[[0, 1], classes])


@pytest.mark.parametrize(("shape", "target"), [((2, 4), [2, 0]), ((2, 3, 4), [(1, 2), (0, 3)]), ((2, 3, 4), (2, 0))])
def test_gradient_seed_of_a_probability(shape: tuple[int, ...], target: Any) -> None:
    output = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    chosen = [target] * 2 if isinstance(target, tuple) else target
    probability = output.softmax(-1)
    total = sum(probability[b][one] for b, one in enumerate(chosen))
    (expected,) = torch.autograd.grad(total, output)
    seed = Target(target, "probability").seed(output)
    torch.testing.assert_close(seed.full(), expected, rtol=1e-12, atol=1e-15)
    assert seed.gradient.flatten(1).abs().amax(1).tolist() == [1, 1]


def test_no_cancellation_where_a_class_is_certain() -> None:
    small = math.exp(-40)
    for logits, scale in (([40.0, 0, 0], 2 * small / (1 + 2 * small) ** 2), ([0.0, 40, 0], None)):
        seed = Target(0, "probability").seed(torch.tensor([logits]))
        p = 1 / (2 + math.exp(40))  # of class 0 in the second
        assert seed.scale.item() == pytest.approx(p * (1 - p) if scale is None else scale, rel=1e-12)
    seed = Target(0, "probability").seed(torch.tensor([[40.0, 0, 0]]))
    torch.testing.assert_close(seed.gradient, torch.tensor([[1, -0.5, -0.5]], dtype=torch.float64))


def test_explained_positions() -> None:
    output = torch.randn(2, 3, 4, dtype=torch.float64)
    assert Target([(1, 2), (-1, 0)]).positions(output).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert Target((0, 3)).positions(output).tolist() == [[1, 0, 0], [1, 0, 0]]
    with pytest.raises(IndexError, match="out of range"):
        Target((3, 0)).positions(output)


def test_a_model_with_one_output() -> None:
    one = torch.randn(3, 1)
    assert torch.equal(Target(0).scores(one), one[:, 0])
    assert Target(0).seed(one).gradient.tolist() == [[1], [1], [1]]
    for output in (one, torch.randn(3)):
        with pytest.raises(ValueError, match="no softmax probability: pass output='logit'"):
            Target(0, "probability").seed(output)


@pytest.mark.parametrize("end", ["softmax", "reshaped softmax", "softmax written out", "sigmoid"])
def test_probability_of_a_model_that_ends_in_one(end: str) -> None:
    """Its output is the probability, so it is explained as it is."""
    logits = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    output = {
        "softmax": lambda x: x.softmax(-1),
        "reshaped softmax": lambda x: x[:, None].softmax(-1)[:, 0].reshape(2, 4),
        "softmax written out": lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
        "sigmoid": torch.sigmoid,
    }[end](logits)
    for name in ("probability", "logit"):
        assert torch.equal(Target(2, name).seed(output).full(), torch.eye(4, dtype=torch.float64)[[2, 2]])
    single = torch.sigmoid(logits[:, 0])  # one output
    assert Target(None, "probability").seed(single).full().tolist() == [1, 1]


@pytest.mark.parametrize("low", [0.0, 0.2])
def test_logits_between_0_and_1_are_not_probabilities(low: float) -> None:
    output = torch.linspace(low, 0.9, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    (expected,) = torch.autograd.grad(output.softmax(-1)[:, 2].sum(), output)
    torch.testing.assert_close(Target(2, "probability").seed(output).full(), expected)
    log = output.log_softmax(-1)
    torch.testing.assert_close(Target(2, "probability").seed(log).full(), expected)


def test_bad_input() -> None:
    output = torch.randn(2, 4)
    with pytest.raises(ValueError, match="output must be 'probability' or 'logit', not 'odds'"):
        Target(0, "odds").seed(output)
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="output is not finite"):
            Target(0).seed(torch.full((2, 4), value))
    with pytest.raises(
        IndexError, match=r"target 4 is out of range: .*\(4,\) outputs a sample, so classes run from 0 to 3"
    ):
        Target(4).scores(output)
    for wrong, named in (
        (True, "not bool"),
        ("tabby", "not str"),
        ([1, 2, 3], "not a list of 3 for 2 outputs"),
        ([1, "tabby"], "not a list with str"),
        (torch.tensor([1, 2, 3]), r"not a tensor of shape \(3,\) for 2 outputs"),
        (torch.tensor([1.0, 2.0]), r"not a tensor of torch\.float32"),
        (np.int64(1), r"not int64\. Numbers of NumPy: int\(target\)"),
    ):
        with pytest.raises(AssertionError, match=named):
            Target(wrong).scores(output)
    with pytest.raises(AssertionError, match=r"returns \(4,\) outputs per sample; pass target="):
        Target(None).scores(output)


def test_the_largest_output() -> None:
    output = torch.tensor([[[0.0, 3.0], [1.0, 2.0]], [[5.0, 4.0], [1.0, 9.0]]])
    assert LargestOutput().scores(output).tolist() == [3, 9]
    assert LargestOutput().seed(output).gradient.flatten(1).argmax(1).tolist() == [1, 3]
    assert LargestOutput().positions(output).tolist() == [[1, 0], [0, 1]]
