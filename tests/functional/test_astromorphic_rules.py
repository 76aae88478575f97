from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_astro.functional.astromorphic import astromorphic_attention
from captum_astro.functional.astromorphic_effective import effective_attention, secant
from captum_astro.functional.astromorphic_features import feature_map
from captum_astro.functional.astromorphic_rules import AstromorphicZ, ConstantAttention, shared_gradients
from captum_astro.functional.transformer_attribution import attention_relevance

OPTIONS = [
    {"scale": 4.0, "nonlinearity": "inside", "alpha": 0.25},
    {"scale": 4.0, "nonlinearity": "outside", "alpha": 1.0},
    {"scale": 4.0, "nonlinearity": "none", "alpha": 0.25},
]


def _given(position: bool, tokens: int = 5) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, tokens, 4, generator=generator, dtype=torch.float64)
    places = torch.rand(2, tokens, 4, generator=generator, dtype=torch.float64) if position else None
    return [q, k, v, places]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o["nonlinearity"])
def test_deep_taylor_entry_by_entry(options: Any, position: bool, causal: bool) -> None:
    options = options | {"causal": causal}
    tokens = 18 if causal else 5  # more than a chunk
    q, k, v, places = _given(position, tokens)
    attention, output = (
        effective_attention(q, k, v, places, **options),
        astromorphic_attention(q, k, v, places, **options),
    )
    relevance = torch.randn_like(output)
    leaves = [x.clone().requires_grad_(True) for x in (q, k, v)]
    result = AstromorphicZ.apply(*leaves, output, attention)
    found = torch.autograd.grad(result, leaves, relevance)
    assert torch.equal(result, output)
    expected = [torch.zeros_like(x) for x in (q, k, v)]
    maps = attention.rows(0, tokens)
    of_map = torch.zeros_like(maps)
    for b in range(2):
        for h in range(2):
            keys = feature_map(k[b, h]) + (places[h] if position else 0)
            for i in range(tokens):
                sees = i + 1 if causal else tokens
                memory = sum(torch.outer(keys[j], v[b, h, j]) for j in range(sees))
                for d in range(4):
                    share = relevance[b, h, i, d] / output[b, h, i, d]
                    inner = {"inside": 1 / options["scale"], "outside": 1.0}.get(options["nonlinearity"])
                    slope = torch.ones(4) if inner is None else inner * secant(inner * memory[:, d])
                    for j in range(sees):
                        which = 4 * h + d if attention.per_channel else h
                        passed = share * v[b, h, j, d] * maps[b, which, i, j]  # the share of this term of A V
                        expected[2][b, h, j, d] += passed / 2
                        of_map[b, which, i, j] += passed / 2
                        parts = attention.read[b, h, i] * slope * keys[j]
                        parts = parts / parts.sum() * passed
                        expected[0][b, h, i] += parts / 4
                        expected[1][b, h, j] += parts / 4 * feature_map(k[b, h, j]) / keys[j]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    cut = [x.transpose(-2, -1).flatten(1, 2)[..., None] if attention.per_channel else x for x in (output, relevance)]
    found_map = attention_relevance(maps.clone(), attention.values, *cut)
    torch.testing.assert_close(found_map, of_map, rtol=1e-10, atol=1e-13)
    if options["nonlinearity"] == "none" and not position:  # nothing else takes a share
        total = sum(part.sum() for part in found)
        torch.testing.assert_close(total, relevance.sum(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o["nonlinearity"])
def test_a_constant_attention(options: Any, causal: bool) -> None:
    q, k, v, places = _given(True)
    attention = effective_attention(q, k, v, places, causal=causal, **options)
    output = astromorphic_attention(q, k, v, places, causal=causal, **options)
    gradient, leaf = torch.randn_like(output), v.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(ConstantAttention.apply(leaf, output, attention), leaf, gradient)
    maps = attention.rows(0, 5)
    maps = maps.unflatten(1, (2, 4)) if attention.per_channel else maps[:, :, None].expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(found, torch.einsum("bhdij,bhid->bhjd", maps, gradient), rtol=1e-10, atol=1e-13)


def test_shared_gradients() -> None:
    q, k, v, places = _given(True)
    leaves = [x.clone().requires_grad_(True) for x in (q, k, v)]
    output = astromorphic_attention(*leaves, places, **OPTIONS[0])
    weights = torch.randn_like(output)
    true = torch.autograd.grad(output, leaves, weights)
    shared = shared_gradients(*leaves, places, **OPTIONS[0])
    assert torch.equal(shared, output)
    for found, whole, part in zip(torch.autograd.grad(shared, leaves, weights), true, (4, 4, 2), strict=True):
        torch.testing.assert_close(found, whole / part)
