"""Each relevance rule against its formula, in loops or by its defining property."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from captum_astro.functional import attention, original_rules
from captum_astro.functional import relevance_rules as rules
from captum_astro.functional.attention import Softmax
from captum_astro.functional.operations import ATTENTION
from captum_astro.functional.transformer_attribution import attention_relevance
from captum_astro.functional.z_plus import LinearZPlus


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _carried(output: torch.Tensor, inputs: list[torch.Tensor], relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(output, inputs, relevance)


def test_linear_by_sign() -> None:
    """Both signs pass the relevance on: it doubles, except where one has no contribution."""
    x = (_normal(2, 4).abs() * torch.tensor([1, 1, -1, -1])).requires_grad_()
    w, r = _normal(4, 4), _normal(2, 4)
    w[:, 0], w[:, 2] = w[:, 0].abs(), -w[:, 2].abs()
    w[3] = w[3].abs()  # no negative value contributes to the last neuron
    out = original_rules.LinearBySign.apply(x, w, _normal(4), F.linear, torch.matmul)
    (got,) = _carried(out, [x], r)
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for b in range(2):
        for j in range(4):
            for sign in (1, -1):
                parts = [max(sign * float(x[b, i].detach()), 0) * max(sign * float(w[j, i]), 0) for i in range(4)]
                for i in range(4):
                    expected[b, i] += parts[i] / sum(parts) * r[b, j] if sum(parts) else 0
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(got.sum(1), 2 * r.sum(1) - r[:, 3], rtol=1e-10, atol=0)


def test_proportional_add() -> None:
    a, b, r = _normal(2, 3, 4).requires_grad_(), _normal(3, 1).requires_grad_(), _normal(2, 3, 4)
    got = _carried(original_rules.ProportionalAdd.apply(a, b), [a, b], r)
    expected = torch.zeros_like(a), torch.zeros_like(b)
    for i in range(2):
        for j in range(3):
            for k in range(4):
                share = r[i, j, k] / (a[i, j, k] + b[j, 0]).detach()
                expected[0][i, j, k] = a[i, j, k].detach() * share
                expected[1][j, 0] += b[j, 0].detach() * share
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-10, atol=1e-14)


def test_input_z_b() -> None:
    x, w, r = _normal(2, 5).requires_grad_(), _normal(4, 5), _normal(2, 4)
    (got,) = _carried(rules.InputZB.apply(x, F.linear, w, F.linear(x.detach(), w)), [x], r)
    expected = torch.zeros(2, 5, dtype=torch.float64)
    for b in range(2):
        low, high = float(x[b].min()), float(x[b].max())
        for j in range(4):
            parts = [
                float(x[b, i] * w[j, i]) - low * max(float(w[j, i]), 0) - high * min(float(w[j, i]), 0)
                for i in range(5)
            ]
            for i in range(5):
                expected[b, i] += parts[i] / sum(parts) * r[b, j]
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-14)
    assert rules.InputZB.apply(x, F.linear, w, F.linear(x.detach(), w)).shape == (2, 4)


def test_residual_add() -> None:
    a, b, r = _normal(2, 3, 4).requires_grad_(), _normal(2, 3, 4).requires_grad_(), _normal(2, 3, 4)
    got = _carried(rules.ResidualAdd.apply(a, b, len(a)), [a, b], r)
    for i in range(2):
        raw = [a[i] / (a[i] + b[i]) * r[i], b[i] / (a[i] + b[i]) * r[i]]
        sizes = [abs(float(part.sum())) for part in raw]
        for part, size, out in zip(raw, sizes, got, strict=True):
            share = size / sum(sizes) * r[i].sum()
            torch.testing.assert_close(out[i], part * share / part.sum(), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(sum(g.sum((1, 2)) for g in got), r.sum((1, 2)), rtol=1e-10, atol=0)
    alone = _carried(rules.ResidualAdd.apply(a[:1], b[:1], 1), [a, b], r[:1])
    torch.testing.assert_close(alone[0][:1], got[0][:1])


def test_relevance_that_dead_neurons_lose_may_be_negative() -> None:
    """The sum of two branches gives 1, of which one branch gets -1/4 and 3/8: a neuron without a positive part has the
    former."""
    x = torch.tensor([[[1.0], [1.0]]], dtype=torch.float64).requires_grad_()
    weights = torch.tensor([[-1.0], [6.0]]), torch.tensor([[3.0], [2.0]])  # one for each place

    def branch(weight: torch.Tensor) -> torch.Tensor:
        return LinearZPlus.apply(x, weight.double()[None], None, torch.mul, torch.mul)

    total = rules.ResidualAdd.apply(branch(weights[0]), branch(weights[1]), 1)
    (got,) = _carried(total, [x], torch.full_like(total, 0.5))
    torch.testing.assert_close(got[0, :, 0], torch.tensor([3 / 4, 3 / 8 + 1 / 8], dtype=torch.float64))
    assert got.sum() == pytest.approx(1 + 1 / 4)


def test_average_pooling_shares_each_window() -> None:
    x, r = _normal(1, 1, 4, 4).requires_grad_(), _normal(1, 1, 2, 2)
    (got,) = _carried(rules.Pooled.apply(x, lambda t: F.avg_pool2d(t, 2)), [x], r)
    for i in range(4):
        for j in range(4):
            a, b = i // 2, j // 2
            window = x[0, 0, 2 * a : 2 * a + 2, 2 * b : 2 * b + 2].sum()
            torch.testing.assert_close(got[0, 0, i, j], (x[0, 0, i, j] / window * r[0, 0, a, b]).detach())


def test_sums_products_and_gates_conserve() -> None:
    x, r = _normal(2, 3, 4).requires_grad_(), _normal(2, 4)
    (got,) = _carried(rules.Pooled.apply(x, lambda t: t.mean(1)), [x], r)
    torch.testing.assert_close(got, (x / x.sum(1, keepdim=True) * r[:, None]).detach())
    a, b, r = _normal(2, 3, 4).requires_grad_(), _normal(2, 4, 5).requires_grad_(), _normal(2, 3, 5)
    of_a, of_b = _carried(rules.Product.apply(a, b), [a, b], r)
    expected = torch.zeros(2, 3, 4, dtype=torch.float64)
    for s in range(2):
        for i in range(3):
            for k in range(4):
                for j in range(5):
                    expected[s, i, k] += a[s, i, k] * b[s, k, j] / (a[s, i] @ b[s, :, j]) * r[s, i, j] / 2
    torch.testing.assert_close(of_a, expected.detach(), rtol=1e-10, atol=1e-14)
    for part in (of_a, of_b):
        torch.testing.assert_close(part.sum((1, 2)), r.sum((1, 2)) / 2, rtol=1e-9, atol=1e-12)
    a, b, r = _normal(2, 3).requires_grad_(), _normal(2, 3).requires_grad_(), _normal(2, 3)
    for part in _carried(rules.Gate.apply(a, b), [a, b], r):
        torch.testing.assert_close(part, r / 2)
    (got,) = _carried(rules.Unchanged.apply(a, a.detach().tanh()), [a], r)
    torch.testing.assert_close(got, r)


def test_fused_attention_is_its_products() -> None:
    q, k, v = (_normal(2, 3, 6, 4).requires_grad_() for _ in range(3))
    r, scale = _normal(2, 3, 6, 4), 0.5
    maps = Softmax(q.detach(), k.detach(), scale)
    output = F.scaled_dot_product_attention(q.detach(), k.detach(), v.detach(), scale=scale)
    fused = rules.FusedAttention.apply(q, k, v, output, maps)
    got = _carried(fused, [q, k, v], r)
    scores = rules.Product.apply(q, k.transpose(-2, -1))
    attention = rules.Unchanged.apply(scores, (scores.detach() * scale).softmax(-1))
    attention.retain_grad()
    expected = _carried(rules.Product.apply(attention, v), [q, k, v, attention], r)
    for one, other in zip(got, expected, strict=False):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)
    found = attention_relevance(maps.rows(0, 6), v.detach(), output, r)
    torch.testing.assert_close(found, expected[3], rtol=1e-9, atol=1e-13)


def test_small_denominators_keep_their_sign() -> None:
    r = torch.tensor([1.0, 1.0, 1.0, 1.0])
    z = torch.tensor([1e-20, -1e-20, 0.0, -2.0])
    got = rules.divided(r, z)
    assert got[0] > 0
    assert got[1] < 0
    assert got[2] == 0
    assert got[3] == -0.5


def test_windows_in_a_dimension_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention ``(B, windows, H, n, d)``, also a few rows at a time, is attention of each window by itself."""
    monkeypatch.setattr(attention, "CHUNK_ELEMENTS", 1)
    operation = ATTENTION[F.scaled_dot_product_attention]
    inputs = [torch.randn(2, 3, 2, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    relevance = torch.randn(2, 3, 2, 4, 5, dtype=torch.float64)
    whole = torch.autograd.grad(operation.relevance(*inputs), inputs, relevance)
    for window in range(3):
        own = [x[:, window].detach().requires_grad_(True) for x in inputs]
        found = torch.autograd.grad(operation.relevance(*own), own, relevance[:, window])
        for all_windows, expected in zip(whole, found, strict=True):
            torch.testing.assert_close(all_windows[:, window], expected)
