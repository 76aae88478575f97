from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_astro.functional import attention
from captum_astro.functional.attention import Attention, Given, Softmax, attention_gradient, widen


def _loops(part: Softmax) -> torch.Tensor:
    """softmax(scale q k + bias), entry by entry."""
    batch, heads, m, _ = part.query.shape
    n = part.key.shape[2]
    out = torch.zeros(batch, heads, m, n, dtype=torch.float64)
    bias = None if part.bias is None else part.bias.expand(batch, heads, m, n)
    for b in range(batch):
        for h in range(heads):
            for i in range(m):
                scores = []
                for j in range(n):
                    score = float(part.query[b, h, i] @ part.key[b, h, j]) * part.scale
                    if bias is not None and bias.dtype == torch.bool:
                        score = score if bias[b, h, i, j] else -math.inf
                    elif bias is not None:
                        score += float(bias[b, h, i, j])
                    scores.append(-math.inf if part.causal and j > i else score)
                total = sum(math.exp(s) for s in scores)
                out[b, h, i] = torch.tensor([math.exp(s) / total for s in scores], dtype=torch.float64)
    return out


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.booleans(),
    st.sampled_from(["none", "full", "row", "bool"]), st.integers(1, 40),
)  # fmt: skip
def test_rows_are_the_softmax(
    batch: int, heads: int, tokens: int, width: int, causal: bool, kind: str, chunk: int
) -> None:
    q, k, v = (torch.randn(batch, heads, tokens, width, dtype=torch.float64) for _ in range(3))
    bias = None
    if kind == "full":
        bias = torch.randn(1, heads, tokens, tokens, dtype=torch.float64)
    elif kind == "row":
        bias = torch.randn(batch, 1, 1, tokens, dtype=torch.float64)
    elif kind == "bool":
        bias = (torch.rand(batch, 1, tokens, tokens) > 0.5) | torch.eye(tokens, dtype=torch.bool)
    part = Softmax(q, k, 0.7, bias, causal)
    expected = _loops(part)
    torch.testing.assert_close(part.rows(0, tokens), expected, rtol=1e-12, atol=1e-14)
    layer = Attention((part, Given(expected)), (1.0, -0.25), v)
    before = attention.CHUNK_ELEMENTS
    attention.CHUNK_ELEMENTS = chunk
    try:
        parts = list(layer.chunks())
    finally:
        attention.CHUNK_ELEMENTS = before
    assert [i for s, _ in parts for i in range(s.start, s.stop)] == list(range(tokens))
    torch.testing.assert_close(torch.cat([rows for _, rows in parts], 2), 0.75 * expected, rtol=1e-12, atol=1e-14)


def test_the_gradient_is_autograds() -> None:
    a = torch.rand(2, 3, 4, 5, dtype=torch.float64).requires_grad_(True)
    v, w = torch.randn(2, 3, 5, 6, dtype=torch.float64), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    heads = a @ v
    heads.retain_grad()
    ((heads * w).tanh().sum()).backward()
    torch.testing.assert_close(attention_gradient(heads.grad, v), a.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    q = torch.randn(1, 1, 3, 2, dtype=dtype)
    rows = Softmax(q, q, 1.0).rows(0, 3)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.sum(-1), torch.ones(1, 1, 3))
    assert widen(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
