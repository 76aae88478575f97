"""Several rows at once are each row by itself."""

from __future__ import annotations

import pytest
import torch

from captum_astro.functional.attention import Attention, Given
from captum_astro.functional.rollout import mixed_row
from captum_astro.functional.transformer_attribution import transformer_attribution_update
from captum_astro.functional.transformer_mm import transformer_mm_update
from captum_astro.functional.vtranm import attention_update

T = torch.Tensor


def _layer() -> tuple[Attention, T]:
    torch.manual_seed(0)
    rows = torch.randn(2, 3, 4, 5, dtype=torch.float64).softmax(-1)  # images, heads, queries, keys
    return Attention((Given(rows),), (1.0,), torch.randn(2, 3, 5, 2).double()), torch.randn(2, 3, 4, 2).double()


def _vtranm(row: T, layer: Attention, gradient: T) -> T:
    return attention_update(row, layer, gradient, layer.value.norm(dim=-1))


def _attribution(row: T, layer: Attention, gradient: T) -> T:
    outputs = layer.rows(0, 4) @ layer.value
    return transformer_attribution_update(row, layer, gradient, layer, [outputs], [gradient.abs()])


def _weighted(row: T, layer: Attention, gradient: T) -> T:
    return mixed_row(row, layer, torch.tensor([[0.2, 0.3, 0.5], [0.9, 0.0, 0.1]]).double())


def _rollout(row: T, layer: Attention, gradient: T) -> T:
    return mixed_row(row, layer)


@pytest.mark.parametrize("update", [_rollout, _weighted, transformer_mm_update, _attribution, _vtranm])
def test_several_rows(update: object) -> None:
    assert callable(update)
    (layer, gradient), rows = _layer(), torch.rand(2, 6, 4, dtype=torch.float64)
    each = torch.stack([update(row, layer, gradient) for row in rows.unbind(1)], 1)
    assert each.abs().max() > 0.1
    torch.testing.assert_close(update(rows, layer, gradient), each, rtol=1e-12, atol=0)


@pytest.mark.parametrize("update", [_rollout, _weighted, transformer_mm_update, _attribution])
def test_rows_in_several_dimensions(update: object) -> None:
    """Of which the first has as many as there are images."""
    assert callable(update)
    (layer, gradient), rows = _layer(), torch.rand(2, 2, 3, 4, dtype=torch.float64)
    expected = update(rows.flatten(1, 2), layer, gradient).unflatten(1, (2, 3))
    torch.testing.assert_close(update(rows, layer, gradient), expected, rtol=1e-12, atol=0)
