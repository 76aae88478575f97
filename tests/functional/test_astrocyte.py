from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_astro.functional.astrocyte import (
    Modulation,
    astrocytic_linear,
    modulation_factors,
    rescaled,
    scale_and_shift,
)

RULES = st.builds(
    Modulation,
    k=st.integers(0, 10),
    tau=st.integers(1, 6),
    phi=st.sampled_from([-0.5, 0.0, 0.3]),
    alpha=st.sampled_from([1.0, 1.5, 2.0]),
    beta=st.sampled_from([0.0, 0.005, 0.05, 0.5, 1.0]),
    counter=st.sampled_from(["saturating", "resetting"]),
    feedback=st.booleans(),
)


def counted(value: float, rule: Modulation) -> float:
    """One neuron, step by step from the equations."""
    count, product = 0, 1.0
    for _ in range(rule.k):
        if rule.counter == "resetting" and abs(count) == rule.tau:
            count = 0
        seen = product * value if rule.feedback else value
        count = max(-rule.tau, min(rule.tau, count + (1 if seen > rule.phi else -1)))
        if count >= rule.tau:
            product *= rule.alpha
        elif count <= -rule.tau:
            product *= rule.beta
    return product


@settings(max_examples=300, deadline=None)
@given(rule=RULES, seed=st.integers(0, 1000))
def test_the_closed_form_is_the_loop(rule: Modulation, seed: int) -> None:
    watched = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = modulation_factors(watched, rule)
    for b in range(2):
        for i in range(5):
            assert float(found[b, i]) == counted(float(watched[b, i]), rule)


@pytest.mark.parametrize(("k", "tau", "times"), [(4, 2, 3), (6, 3, 4), (6, 2, 5), (8, 3, 6), (2, 3, 0), (0, 1, 0)])
def test_the_published_counts(k: int, tau: int, times: int) -> None:
    rule = Modulation(k=k, tau=tau)
    assert rule.applications == times
    assert rule.is_identity == (times == 0)
    both = modulation_factors(torch.tensor([[1.0, -1.0]], dtype=torch.float64), rule)
    torch.testing.assert_close(both, torch.tensor([[1.5**times, 0.05**times]], dtype=torch.float64))


@pytest.mark.parametrize("rescale", ["length", "moments", "none"])
def test_the_layer_token_by_token(rescale: Any) -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*s, dtype=torch.float64) for s in ((2, 3, 4), (5, 4), (5,)))
    factors = modulation_factors(x[:, 0], Modulation())
    found = astrocytic_linear(x, F.linear(x, weight, bias), lambda t: F.linear(t, weight, bias), factors, rescale)
    for b in range(2):
        for n in range(3):
            plain, y = weight @ x[b, n] + bias, weight @ torch.diag(factors[b]) @ x[b, n] + bias
            if rescale == "length":
                y = y * plain.norm() / y.norm()
            elif rescale == "moments":
                y = (y - y.mean()) / y.std() * plain.std() + plain.mean()
            torch.testing.assert_close(found[b, n], y, rtol=1e-12, atol=1e-14)


def test_zero_length_vector() -> None:
    scale, shift = scale_and_shift(torch.zeros(1, 4), torch.ones(1, 4), "length")
    assert scale.item() == 0
    assert shift is None
    scale, shift = scale_and_shift(torch.full((1, 4), 3.0), torch.full((1, 4), 2.0), "moments")
    assert scale.item() == 0
    assert shift.item() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lengths_out_of_range(dtype: torch.dtype) -> None:
    """Squares of these entries are 0, or infinite."""
    torch.manual_seed(0)
    base = torch.randn(1, 4, 64, dtype=torch.float64)
    for size in (1e-30, 1e25) if dtype == torch.float32 else (1e-4, 500.0):
        found = rescaled((base * size).to(dtype), base.to(dtype), "length")
        torch.testing.assert_close(found.double(), base, rtol=2e-2, atol=1e-2)


def test_gradients_flow_and_the_factors_are_constants() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)

    def layer(x: torch.Tensor, rescale: Any = "length") -> torch.Tensor:
        factors = modulation_factors(x[:, 0], Modulation())
        assert not factors.requires_grad
        return astrocytic_linear(x, F.linear(x, weight, bias), lambda t: F.linear(t, weight, bias), factors, rescale)

    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    for rescale in ("length", "moments", "none"):
        assert torch.autograd.gradcheck(lambda t, form=rescale: layer(t, form), (x,))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": -1}, "k must be a whole number"), ({"k": 2.0}, "k must be a whole"),
        ({"tau": 0}, "tau must be a whole number"),
        ({"alpha": 0.5}, "alpha must be at least 1"),
        ({"alpha": 1e10, "k": 8}, "alpha must be at least 1"),
        ({"alpha": "a"}, "alpha is not"), ({"beta": 1.5}, "beta must be from 0 to 1"),
        ({"phi": float("nan")}, "phi is not a number"),
        ({"phi": None}, "phi is not a number"),
        ({"rescale": "l2"}, "rescale must be one of length"),
        ({"counter": "x"}, "counter must be one of saturating"),
        ({"k": 1001, "alpha": 1}, "k must be at most 1000, not 1001"),
        ({"feedback": "no"}, "feedback must be true or false, not 'no'"),
    ],
)  # fmt: skip
def test_bad_values(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Modulation(**wrong)
