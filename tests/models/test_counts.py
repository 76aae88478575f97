from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from captum_astro.models.astromorphic import AstromorphicAttention, SoftmaxAttention
from captum_astro.models.counts import astromorphic_cost, cost_table, equal_length, softmax_cost


@pytest.mark.parametrize("tokens", [1, 7, 128, 129, 300])
@pytest.mark.parametrize("relative_position", [True, False])
@pytest.mark.parametrize("output_projection", [True, False])
@pytest.mark.parametrize("hidden_dim", [None, 5])
def test_matrix_products_are_those_that_torch_counts(tokens, relative_position, output_projection, hidden_dim) -> None:
    options = {
        "hidden_dim": hidden_dim, "relative_position": relative_position, "output_projection": output_projection,
    }  # fmt: skip
    attention = AstromorphicAttention(24, 3, tokens + 10, **options)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        attention(torch.randn(1, tokens, 24))
    cost = astromorphic_cost(tokens, 24, 3, places=tokens + 10, **options)
    assert 2 * (cost.projections + cost.mixing + cost.positions) == counter.get_total_flops()


def test_softmax_products() -> None:
    # unfused, as the counter of some versions of torch leaves fused attention out
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        SoftmaxAttention(24, 3)(torch.randn(1, 50, 24))
    cost = softmax_cost(50, 24, 3)
    assert 2 * (cost.projections + cost.mixing) == counter.get_total_flops()


def test_by_hand() -> None:
    """Two tokens, width 4, two heads of two units: the counts of the terms in the equations."""
    cost = astromorphic_cost(2, 4, 2, relative_position=False)
    assert cost.projections == 2 * 4 * 12
    assert cost.mixing == 2 * 2 * (2 * 2) * 2
    assert cost.normaliser == 2 * 2 * 2
    assert cost.exponentials == 2 * (2 * 2 * 2) + 2 * 2 * 2
    assert cost.state == 2 * 2 * 2 + 2 * 2
    assert astromorphic_cost(2, 4, 2, nonlinearity="none", relative_position=False).exponentials == 16
    assert astromorphic_cost(2, 4, 2, causal=True, relative_position=False).exponentials == 16 + 2 * 8
    causal = softmax_cost(3, 4, 2, causal=True)
    assert (causal.mixing, causal.exponentials, causal.state) == (2 * 6 * 4, 12, 24)


def test_growth() -> None:
    table = cost_table([1024, 2048, 16384], 192, 3).set_index(["attention", "tokens"])
    ours, theirs = table.loc["astromorphic"], table.loc["softmax"]
    assert ours["multiply_adds"][2048] / ours["multiply_adds"][1024] == pytest.approx(2, rel=0.01)
    assert theirs["mixing"][2048] == 4 * theirs["mixing"][1024]
    assert ours["state"].nunique() == 1
    assert theirs["state"][16384] == 16 * theirs["state"][1024]


@pytest.mark.parametrize("causal", [True, False])
def test_equal_length(causal) -> None:
    n = equal_length(192, 3, causal=causal)
    for tokens, cheaper in ((n - 1, False), (n, True), (4 * n, True)):
        ours, theirs = astromorphic_cost(tokens, 192, 3, causal=causal), softmax_cost(tokens, 192, 3, causal=causal)
        assert (ours.multiply_adds < theirs.multiply_adds) == cheaper


def test_invalid_options() -> None:
    with pytest.raises(ValueError, match="3 does not divide 16"):
        astromorphic_cost(10, 16, 3)
    with pytest.raises(ValueError, match="at least 1"):
        softmax_cost(0, 16, 2)
