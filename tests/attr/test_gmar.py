"""GMAR against explicit matrices, on every family and in windows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from captum_astro import GMAR
from tests import twin_windows
from tests.attr import reference
from tests.families import FAMILIES, HIERARCHICAL, images


def weighted(attention: Any, gradient: Any, size: str) -> torch.Tensor:
    """``sum_h w_h A_h`` of maps ``(H, q, n)``, entry by entry."""
    heads, queries, keys = attention.shape
    sizes = []
    for h in range(heads):
        entries = [
            abs(float(gradient[h, i, j]))
            for i, j in itertools.product(range(queries), range(keys))
            if abs(attention[h, i, j]) > 1e-38
        ]
        sizes.append(sum(entries) if size == "l1" else sum(e**2 for e in entries) ** 0.5)
    return torch.stack([s / sum(sizes) * attention[h] for h, s in enumerate(sizes)]).sum(0)


@pytest.mark.parametrize("size", ["l1", "l2"])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.one_in(3)
def test_gmar(name: str, size: str) -> None:
    model: Any
    model, taken, row = reference.taken(name)
    tokens = len(row)
    if taken.pool is not None:
        _, part, first = taken.pool
        whole = weighted(part.attention, part.gradient, size)
        queries = whole[:1] if model.attn_pool.pool == "token" else whole
        row = torch.cat([torch.zeros(first, dtype=row.dtype), queries.mean(0)])
    for _, parts in reversed(taken.stages):
        attended = [part for part in parts if part.attention is not None]
        if attended:
            update = torch.eye(tokens, dtype=row.dtype)
            for part in attended:
                update = update + weighted(part.attention, part.gradient, size)
            row = row @ (update / update.sum(1, keepdim=True))
    reference.close(reference.tokens(GMAR, name, size=size), row)


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_windows(name: str) -> None:
    model, taken = twin_windows.of_model(name, "logit")

    def layer(step: twin_windows.Attended | twin_windows.Added) -> torch.Tensor | None:
        if isinstance(step, twin_windows.Added):
            return None
        update = torch.eye(len(step.stream), dtype=torch.float64) + weighted(step.attention, step.gradient, "l1")
        return update / update.sum(1, keepdim=True)

    whole = twin_windows.product(taken, torch.eye(len(taken.lengths), dtype=torch.float64), layer, False)
    got = GMAR(model).attribute(images(name, 1), target=3, attribute_to="tokens")[0]
    reference.close(got, twin_windows.mean_row(whole))
