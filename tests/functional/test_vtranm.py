from __future__ import annotations

import pytest
import torch

from captum_astro.functional import vtranm
from captum_astro.functional.attention import Attention, Softmax
from captum_astro.functional.vtranm import (
    attention_update,
    feed_forward_weights,
    gated_weights,
    head_weights,
    initial_lengths,
)

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


@pytest.mark.parametrize("width", [D, D + 1])
@pytest.mark.parametrize("padded", [False, True])
def test_a_gate_is_another_value_for_each_query(width: int, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for padding, for streams of another width, and where few pairs of channels fit into memory."""
    stream, value, out, gate = _normal(B, N, width), _normal(B, H, N, V), _normal(H, V, D), _normal(B, H, 3, V)
    present = torch.tensor([[True] * (N - 1) + [False]]) if padded else None
    for chunk in (vtranm.CHUNK_ELEMENTS, B * H * V * V // 2):
        monkeypatch.setattr(vtranm, "CHUNK_ELEMENTS", chunk)
        found = gated_weights(stream, value, out, gate, present=present)
        for i in range(3):
            expected = head_weights(stream, value * gate[:, :, i, None], out, present=present)
            torch.testing.assert_close(found[:, :, i], expected, rtol=1e-10, atol=0)


def test_zero_length_tokens_get_no_relevance() -> None:
    stream, value, out = torch.zeros(1, N, D), torch.zeros(1, H, N, V), torch.randn(H, V, D)
    assert torch.equal(head_weights(stream, value, out, ("length",)), torch.zeros(1, H, N))
    assert torch.isfinite(head_weights(stream, value, out)).all()
    assert torch.isfinite(feed_forward_weights(stream, stream)).all()
