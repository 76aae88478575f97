"""ViT-CX against its equations, written with loops in float64."""

from __future__ import annotations

import math

import pytest
import torch

from captum_astro.functional.vit_cx import as_masks, clusters, impact_map, masked, merged

Rows = list[list[float]]


def rescaled(rows: Rows) -> Rows:
    found = []
    for row in rows:
        low, high = min(row), max(row)
        found.append([(v - low) / (high - low) if high > low else 0.0 for v in row])
    return found


def apart(a: list[float], b: list[float]) -> float:
    lengths = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
    return 1 - sum(v * w for v, w in zip(a, b, strict=True)) / lengths if lengths else 1.0


def linked(rows: Rows, distance: float) -> list[list[int]]:
    """Complete linkage: join the two closest groups, as far as their most distant members, while below the distance."""
    groups = [[i] for i in range(len(rows))]
    while len(groups) > 1:
        far = {
            (a, b): max(apart(rows[i], rows[j]) for i in groups[a] for j in groups[b])
            for a in range(len(groups)) for b in range(a)
        }  # fmt: skip
        (a, b), nearest = min(far.items(), key=lambda item: item[1])
        if nearest >= distance:
            break
        groups[b] += groups.pop(a)
    return sorted(sorted(group) for group in groups)


def summed(rows: Rows, groups: list[list[int]]) -> Rows:
    return rescaled([[sum(rows[i][p] for i in group) for p in range(len(rows[0]))] for group in groups])


def mapped(masks: Rows, impacts: list[float]) -> list[float]:
    found = []
    for p in range(len(masks[0])):
        cover = sum(mask[p] for mask in masks)
        total = sum(s * mask[p] for s, mask in zip(impacts, masks, strict=True)) / len(masks)
        found.append(total / cover if cover > 0 else 0.0)
    return found


@pytest.mark.parametrize("distance", [0.0, 0.02, 0.1, 0.3, 2.0])
@pytest.mark.parametrize("channels", [1, 2, 13])
def test_the_equations(channels: int, distance: float) -> None:
    maps = torch.randn(channels, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(channels))
    maps[-1] = 2.5 if channels > 2 else maps[-1]  # the same everywhere: no mask, and far from all others
    masks = as_masks(maps)
    assert torch.allclose(masks, torch.tensor(rescaled(maps.tolist()), dtype=torch.float64), rtol=1e-10, atol=1e-12)
    labels = clusters(masks, distance)
    groups = linked(masks.tolist(), distance)
    assert [[i for i in range(channels) if labels[i] == n] for n in range(int(labels.max()) + 1)] == groups
    found = merged(masks, labels)
    by_loops = summed(masks.tolist(), groups)
    assert torch.allclose(found, torch.tensor(by_loops, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    impacts = torch.linspace(-1, 1, len(found), dtype=torch.float64) + 0.3
    expected = torch.tensor(mapped(by_loops, impacts.tolist()), dtype=torch.float64)
    assert torch.allclose(impact_map(found, impacts), expected, rtol=1e-10, atol=1e-12)


def test_noise_stands_where_the_mask_is_low() -> None:
    image, masks = torch.tensor([[[2.0, 4.0]]]), torch.tensor([[[[0.25, 1.0]]]])
    through, whole = masked(image, masks, torch.tensor([[[[8.0, 8.0]]]]))
    assert through.tolist() == [[[[6.5, 4.0]]]]
    assert whole.tolist() == [[[[8.0, 4.0]]]]
