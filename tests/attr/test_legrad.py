"""LeGrad against loops, on every family."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from captum_astro import InFlow, LeGrad, UnsupportedModelError
from tests import twin_windows
from tests.attr import early, reference
from tests.families import FAMILIES, HIERARCHICAL, build, images


def legrad(name: str, model: torch.nn.Module, averaged: bool) -> torch.Tensor:
    """The map's definition, entry by entry."""
    tokens = len(reference.taken(name)[2])
    total = torch.zeros(tokens, dtype=torch.float64)
    for reads in early.of_family(name, early.head_of_mean if averaged else early.head):
        for read in reads:
            heads, queries, keys = read.gradient.shape
            pool = getattr(model, "attn_pool", None)
            chosen = range(1 if pool is not None and pool.pool == "token" else queries)
            for h, i, j in itertools.product(range(heads), chosen, range(keys)):
                # a pooling head may leave the first tokens out
                total[tokens - keys + j] += max(float(read.gradient[h, i, j]), 0) / (heads * len(chosen))
    return total


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.one_in(3)
def test_legrad(name: str, averaged: bool) -> None:
    expected = legrad(name, build(name), averaged)
    reference.close(reference.tokens(LeGrad, name, averaged=averaged), expected)


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("name", HIERARCHICAL)
def test_windows(name: str, averaged: bool) -> None:
    """The blocks of the last resolution, whose maps are carried to the first grid by equal shares."""
    model, taken = twin_windows.of_model(name, "logit")
    scores = twin_windows.of_early(name, averaged)
    total = torch.zeros(len(taken.lengths), dtype=torch.float64)
    down = torch.eye(len(taken.lengths), dtype=torch.float64)
    for step in taken.steps:
        if isinstance(step, twin_windows.Merged):
            down = twin_windows.merge_matrix(step, False) @ down
        elif isinstance(step, twin_windows.Attended) and step.block in scores:
            gradient = scores[step.block]
            row = torch.zeros(gradient.shape[1], dtype=torch.float64)
            for h, i in itertools.product(range(gradient.shape[0]), range(gradient.shape[1])):
                row += gradient[h, i].clamp(min=0) * (step.attention[h, i] > 1e-38) / gradient.shape[:2].numel()
            total += row @ down
    got = LeGrad(model).attribute(images(name, 1), target=3, attribute_to="tokens", averaged=averaged)[0]
    reference.close(got, total)


def test_the_blocks_that_are_chosen() -> None:
    one, both = (reference.tokens(LeGrad, "cls", layers=layers) for layers in ([1], [0, 1]))
    reference.close(both - one, reference.tokens(LeGrad, "cls", layers=[0]))
    assert not torch.equal(one, both)


def test_a_block_that_the_head_cannot_read() -> None:
    model = build("swin")
    with pytest.raises(UnsupportedModelError, match=r"reads \(16, 24\) tokens .* block 0 are \(64, "):
        LeGrad(model).attribute(images("swin"), target=1, layers=[0])
    last = LeGrad(model).attribute(images("swin"), target=1, layers=[2, 3])
    assert torch.equal(LeGrad(model).attribute(images("swin"), target=1), last)
    with pytest.raises(UnsupportedModelError, match=r"^LeGrad has the head read .* no block with attention gives"):
        LeGrad(build("sam")).attribute(images("sam", 1), target=1)


@pytest.mark.parametrize("method", [LeGrad, InFlow])
def test_all_blocks_are_read_in_one_pass(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the one that shows which blocks there are."""
    passes: list[int] = []
    forward = VisionTransformer.forward_features

    def counted(*given: Any, **options: Any) -> torch.Tensor:
        passes.append(1)
        return forward(*given, **options)

    monkeypatch.setattr(VisionTransformer, "forward_features", counted)
    method(build("cls")).attribute(images("cls"), target=torch.tensor([1, 3, 0]))
    assert len(passes) == 2


class Flat(torch.nn.Module):
    """A wrapper that takes the number of images from its input."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x).view(len(x), -1)


@pytest.mark.parametrize("method", [LeGrad, InFlow])
@pytest.mark.parametrize("target", [1, [1, 3], torch.tensor([1, 3])])
def test_blocks_that_cannot_be_read_in_one_pass(method: Any, target: Any) -> None:
    x = images("cls", 2)
    expected = method(build("cls")).attribute(x, target=target)
    reference.close(method(Flat(build("cls"))).attribute(x, target=target), expected)
