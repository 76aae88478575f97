from __future__ import annotations

import pytest
import torch

from captum_astro.functional.attention import Attention, Softmax
from captum_astro.functional.vtranm import attention_update, feed_forward_weights, head_weights, initial_lengths

B, H, N, D, V = 2, 3, 5, 8, 4


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("components", [("length", "direction"), ("length",), ("direction",), ()])
def test_weights_are_the_equations(components: tuple[str, ...]) -> None:
    stream, value, out = _normal(B, N, D), _normal(B, H, N, V), _normal(H, V, D)
    weights = head_weights(stream, value, out, components)
    ffn = feed_forward_weights(stream, value[:, 0] @ out[0], components)
    for b in range(B):
        for h in range(H):
            moved = torch.stack([value[b, h, j] @ out[h] for j in range(N)])
            cosine = torch.stack([moved[j] @ stream[b, j] / moved[j].norm() / stream[b, j].norm() for j in range(N)])
            expected = torch.ones(N, dtype=torch.float64)
            if "length" in components:
                expected *= torch.stack([moved[j].norm() / stream[b, j].norm() for j in range(N)])
            if "direction" in components:
                expected *= cosine.exp() / cosine.exp().sum()
            torch.testing.assert_close(weights[b, h], expected, rtol=1e-12, atol=0)
            if h == 0:
                torch.testing.assert_close(ffn[b], expected if components else expected * 0, rtol=1e-12, atol=0)
    lengths = stream.norm(dim=-1) if "length" in components else torch.ones(B, N, dtype=torch.float64)
    torch.testing.assert_close(initial_lengths(stream, components), lengths)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("rows", [1, N])
def test_update_is_the_equation(scaled: bool, rows: int) -> None:
    attention = Attention((Softmax(_normal(B, H, N, V), _normal(B, H, N, V), 0.5),), (1.0,), _normal(B, H, N, V))
    gradient, weights, r = _normal(B, H, N, V), _normal(B, H, N).abs(), _normal(B, rows, N)
    scale = _normal(B, H, N).abs() if scaled else None
    maps = attention.rows(0, N)
    expected = torch.zeros(B, rows, N, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for i in range(N):
                for j in range(N):
                    d = max(float(gradient[b, h, i] @ attention.value[b, h, j]), 0.0)
                    entry = d * maps[b, h, i, j] * weights[b, h, j] / H * (1 if scale is None else scale[b, h, i])
                    expected[b, :, j] += r[b, :, i] * entry
    got = attention_update(r, attention, gradient, weights, scale)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_zero_length_tokens_get_no_relevance() -> None:
    stream, value, out = torch.zeros(1, N, D), torch.zeros(1, H, N, V), torch.randn(H, V, D)
    assert torch.equal(head_weights(stream, value, out, ("length",)), torch.zeros(1, H, N))
    assert torch.isfinite(head_weights(stream, value, out)).all()
    assert torch.isfinite(feed_forward_weights(stream, stream)).all()
