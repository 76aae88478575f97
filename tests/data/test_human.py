from __future__ import annotations

import math

import pytest
import torch

from captum_astro.data.human import prepare_heatmap


def _resized(map_: list[list[float]], size: int) -> list[list[float]]:
    """Bilinear, half-pixel centres: a position outside uses the nearest pixel."""
    rows, columns = len(map_), len(map_[0])

    def neighbours(i: int, n: int) -> tuple[int, int, float]:
        place = (i + 0.5) * n / size - 0.5
        low = math.floor(place)
        return max(low, 0), min(low + 1, n - 1), place - low

    result = []
    for i in range(size):
        top, bottom, down = neighbours(i, rows)
        row = []
        for j in range(size):
            left, right, along = neighbours(j, columns)
            upper = map_[top][left] * (1 - along) + map_[top][right] * along
            lower = map_[bottom][left] * (1 - along) + map_[bottom][right] * along
            row.append(upper * (1 - down) + lower * down)
        result.append(row)
    return result


def _blurred(map_: list[list[float]]) -> list[list[float]]:
    xs, ys = list(range(-5, 5)), list(range(4, -6, -1))
    kernel = [[math.exp(-(x * x + y * y) / 200) for x in xs] for y in ys]
    total = sum(map(sum, kernel))
    n = len(map_)
    result = []
    for i in range(n):
        row = []
        for j in range(n):
            value = 0.0
            for a in range(10):
                for b in range(10):
                    if 0 <= i + a - 4 < n and 0 <= j + b - 4 < n:
                        value += kernel[a][b] / total * map_[i + a - 4][j + b - 4]
            row.append(value)
        result.append(row)
    return result


@pytest.mark.parametrize(("shape", "size"), [((256, 256), 224), ((50, 90), 37)])
def test_twin(shape: tuple[int, int], size: int) -> None:
    maps = torch.rand(2, *shape, dtype=torch.float64) ** 4
    twin = torch.tensor([_resized(_blurred(_resized(m.tolist(), 64)), size) for m in maps], dtype=torch.float64)
    prepared = prepare_heatmap(maps, size)
    assert torch.allclose(prepared, twin, rtol=0, atol=1e-12)
    assert torch.equal(prepare_heatmap(maps[1], size), prepared[1])
    assert torch.allclose(prepare_heatmap(maps.float(), size).double(), twin, rtol=0, atol=1e-6)


def test_off_centre_by_half_a_pixel_of_64() -> None:
    human = torch.zeros(64, 64, dtype=torch.float64)
    human[31:33, 31:33] = 1
    prepared = prepare_heatmap(human, 64)
    places = torch.arange(64, dtype=torch.float64) - 31.5
    down, along = ((prepared.sum(axis) * places).sum() / prepared.sum() for axis in (1, 0))
    assert -0.6 < down < -0.4
    assert -0.6 < along < -0.4


def test_option_kinds() -> None:
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[5:9, 7:20] = True
    assert prepare_heatmap(mask).dtype == torch.float32
    assert torch.equal(prepare_heatmap(mask), prepare_heatmap(mask.byte()))
    for bad in (torch.zeros(8), torch.zeros(1, 1, 8, 8), torch.zeros(0, 8)):
        with pytest.raises(ValueError, match="have pixels, not"):
            prepare_heatmap(bad)
    with pytest.raises(ValueError, match="size must be at least 1"):
        prepare_heatmap(mask, 0)
