"""A row times each head's matrix, in parts of every size, is that of the whole matrix."""

from __future__ import annotations

import pytest
import torch

from captum_astro.functional import attention as maths
from captum_astro.functional.astromorphic_effective import effective_attention
from captum_astro.functional.attention import Attention, Given, Softmax
from captum_astro.functional.head_rows import Function, head_rows

T = torch.Tensor
B, H, Q, N, D = 3, 2, 5, 5, 4


def _normal(*shape: int) -> T:
    return torch.randn(*shape, dtype=torch.float64)


def _softmax(*bias: int, causal: bool = False) -> Attention:
    q, k, v = _normal(B, H, Q, D), _normal(B, H, N, D), _normal(B, H, N, D)
    return Attention((Softmax(q, k, 0.5, _normal(*bias) if bias else None, causal),), (1.0,), v)


def _masked() -> Attention:
    layer = _softmax()
    mask = torch.rand(B, 1, Q, N) > 0.4
    mask[0, 0, 2] = False  # a query that may attend to nothing
    return Attention((Softmax(layer.maps[0].query, layer.maps[0].key, 0.5, mask),), (1.0,), layer.value)


def _differential() -> Attention:
    one, other = _softmax(), _softmax()
    return Attention((*one.maps, *other.maps), (1.0, -0.8), one.value)


def _stored() -> Attention:
    layer = _softmax()
    return Attention((Given(layer.rows(0, Q), _normal(B, H, Q, N)),), (1.0,), layer.value)


def _astromorphic() -> Attention:
    q, k, v = (_normal(B, H, Q, D) for _ in range(3))
    part = effective_attention(q, k, v, scale=4.0)
    return Attention((part,), (1.0,), part.values)


LAYERS = {
    "plain": _softmax,
    "causal": lambda: _softmax(causal=True),
    "bias of each head": lambda: _softmax(1, H, Q, N),
    "bias of each sample": lambda: _softmax(B, 1, 1, N),
    "bias of each pair": lambda: _softmax(Q, N),
    "mask": _masked,
    "differential": _differential,
    "stored": _stored,
    "a head for each channel": _astromorphic,
}
ENTRIES: dict[Function, object] = {
    "attention": lambda a, s: a,
    "flow": lambda a, s: (a * s).clamp(min=0),
    "gain": lambda a, s: a * s.clamp(min=0),
    "rise": lambda a, s: s.clamp(min=0) * (a.abs() > 1e-37),
    "size": lambda a, s: s.abs() * (a.abs() > 1e-37),
    "square": lambda a, s: s.square() * (a.abs() > 1e-37),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_it_is_the_whole_matrix(layer: str, entry: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention = LAYERS[layer]()
    heads = attention.value.shape[1]
    gradient = _normal(B, heads, Q, attention.value.shape[-1])
    slopes = None if entry == "attention" else gradient
    matrix = ENTRIES[entry](attention.rows(0, Q), gradient @ attention.value.transpose(-2, -1))
    token = torch.zeros(B, Q, dtype=torch.float64)
    token[:, 1] = 2
    each = torch.rand(B, heads, Q, dtype=torch.float64)
    # some heads of a sample, all heads of a sample, some samples, everything
    for elements in (1, Q * N, 2 * Q * N, heads * Q * N, 2 * heads * Q * N, 1 << 20):
        monkeypatch.setattr(maths, "CHUNK_ELEMENTS", elements)
        for row in (each[:, 0], each, token, torch.zeros_like(token)):
            by_head = (row if row.ndim == 3 else row[:, None]).expand(-1, heads, -1)
            expected = torch.einsum("bhi,bhij->bhj", by_head, matrix)
            torch.testing.assert_close(head_rows(row, attention, entry, slopes), expected, rtol=1e-12, atol=1e-14)


def test_groups_are_parts_of_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = _softmax(B, H, Q, N)
    seen = []
    for elements in (1, 2 * H * Q * N):
        monkeypatch.setattr(maths, "CHUNK_ELEMENTS", elements)
        for group, part in attention.groups():
            torch.testing.assert_close(part.rows(0, Q), attention.rows(0, Q)[group], rtol=1e-12, atol=0)
            torch.testing.assert_close(part.value, attention.value[group], rtol=0, atol=0)
            seen.append(tuple(part.value.shape[:2]))
    assert seen == [(1, 1)] * B * H + [(2, H), (1, H)]
