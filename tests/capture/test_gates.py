"""Gates: values of the image that multiply a signal, and take no relevance."""

from __future__ import annotations

import pytest
import torch

from captum_astro.capture.gates import Gates
from captum_astro.layouts.errors import UnsupportedModelError


def _gate(gates: Gates, x: torch.Tensor, slope: torch.Tensor | None = None) -> torch.Tensor:
    return gates.made(torch.sigmoid, x, torch.sigmoid(x), slope)


def test_a_product_with_a_held_gate_has_the_signals_gradient_alone() -> None:
    gates = Gates()
    x, signal = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    gate = _gate(gates, x)
    assert gate in gates
    assert signal not in gates
    assert "no tensor" not in gates
    torch.testing.assert_close(gate.detach(), torch.sigmoid(x.detach()))
    product = gates.held(gate) * gates.held(signal)
    found = torch.autograd.grad(product.sum(), [signal, x], allow_unused=True)
    torch.testing.assert_close(found[0], torch.sigmoid(x.detach()))
    assert found[1] is None


def test_relevance_that_reaches_a_gate_otherwise_is_refused_or_follows_the_slope() -> None:
    gates, x = Gates(), torch.randn(3, requires_grad=True)
    with pytest.raises(UnsupportedModelError, match=r"As anything but a factor, .*sigmoid"):
        _gate(gates, x).sum().backward()
    (found,) = torch.autograd.grad(_gate(gates, x, slope=torch.full((3,), 0.5)).sum(), x)
    assert found.tolist() == [0.5, 0.5, 0.5]


def test_what_is_computed_from_gates_alone_is_a_gate() -> None:
    gates, x = Gates(), torch.randn(3, requires_grad=True)
    one, other, signal = _gate(gates, x), _gate(gates, x), x * 2
    assert gates.all_among((one, other, 3.0), {})
    assert gates.all_among(([one, torch.ones(3)],), {"other": other})
    assert not gates.all_among((one, signal), {})
    assert not gates.all_among((torch.ones(3),), {})
    both = gates.follow([one + other, one - other, torch.ones(3)])
    assert [y in gates for y in both] == [True, True, False]
    held = gates.held([one, signal, "text"])
    assert not held[0].requires_grad
    assert held[1:] == [signal, "text"]


def test_an_operation_in_place_makes_or_ends_a_gate() -> None:
    gates, x = Gates(), torch.randn(3, requires_grad=True)
    gate, signal = _gate(gates, x), x * 2
    gates.replace(gate, signal)
    assert gate not in gates
    gates.replace(signal, _gate(gates, x))
    assert signal in gates
