"""What a model adds without reading the image: one leaf for each constant, and the relevance that arrives there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from captum_astro.capture.constants import Constants

T = torch.Tensor


def _normal(*shape: int) -> T:
    return torch.randn(*shape, dtype=torch.float64)


X = torch.linspace(-1, 2, 24, dtype=torch.float64).reshape(2, 4, 3)
SUMS: dict[str, tuple[Callable[..., T], Callable[[T], Any]]] = {
    "a sum": (torch.add, lambda x: (x, _normal(1, 4, 3))),
    "a sum with a number": (torch.add, lambda x: (x, 2.0)),
    "a constant first": (torch.add, lambda x: (_normal(3), x)),
    "a difference": (torch.sub, lambda x: (x, _normal(3))),
    "joined tokens": (torch.cat, lambda x: ([_normal(2, 1, 3), x], 1)),
}
LAYERS: dict[str, tuple[Callable[..., T], Callable[[T], Any]]] = {
    "a linear layer": (F.linear, lambda x: (x, _normal(5, 3), _normal(5))),
    "a layer norm": (F.layer_norm, lambda x: (x, (3,), _normal(3), _normal(3))),
    "a batch norm": (F.batch_norm, lambda x: (x, _normal(4), _normal(4).abs() + 1, _normal(4), _normal(4))),
    "a batch norm without weights": (F.batch_norm, lambda x: (x, _normal(4), _normal(4).abs() + 1)),
}


def _checked(func: Callable[..., T], args: Any, replaced: Any, kwargs: Any, constants: Constants) -> None:
    """The same output, which the input and the constant sum to."""
    x = next(
        a for a in (*args, *(args[0] if isinstance(args[0], list) else ())) if isinstance(a, T) and a.requires_grad
    )
    output = func(*replaced, **kwargs)
    torch.testing.assert_close(output, func(*args))
    assert len(constants.leaves) == 1
    if func is F.layer_norm:
        return  # not linear in x
    weights = torch.randn_like(output)
    slope, arrived = torch.autograd.grad(output, [x, constants.leaves[0]], weights)
    (relevance,) = constants.relevance((arrived,), times_input=True)
    torch.testing.assert_close((x * slope).sum() + relevance.sum(), (output * weights).sum())


@pytest.mark.parametrize("kind", SUMS)
def test_sums_have_a_leaf(kind: str) -> None:
    torch.manual_seed(0)
    func, given = SUMS[kind]
    args, constants = given(X.clone().requires_grad_()), Constants()
    replaced, kwargs = constants.in_sums(func, args, {})
    _checked(func, args, replaced, kwargs, constants)


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_have_a_leaf(kind: str) -> None:
    torch.manual_seed(0)
    func, given = LAYERS[kind]
    args, constants = given(X.clone().requires_grad_()), Constants()
    replaced, kwargs = constants.in_layers(func, args, {})
    _checked(func, args, replaced, kwargs, constants)


def test_nothing_is_added_without_a_bias() -> None:
    constants = Constants()
    args = (X.clone().requires_grad_(), _normal(5, 3))
    assert constants.in_layers(F.linear, args, {}) == (args, {})
    assert constants.leaves == []


def test_a_constant_that_nothing_arrives_at_has_no_relevance() -> None:
    constants = Constants()
    constants.in_sums(torch.add, (X.clone().requires_grad_(), _normal(3)), {})
    assert torch.equal(constants.relevance((None,), times_input=True)[0], torch.zeros(3, dtype=torch.float64))
    arrived = _normal(3)
    assert torch.equal(constants.relevance((arrived,), times_input=False)[0], arrived)
