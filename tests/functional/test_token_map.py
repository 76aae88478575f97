"""Token maps against loops over single tokens, and against timm's own windows and merging."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.models.swin_transformer import PatchMerging, window_partition, window_reverse
from torch import nn

from captum_astro.functional.token_map import (
    TokenMap,
    convolution_map,
    dilated_map,
    first_map,
    merge_map,
    preceded_map,
    same_map,
    tail_map,
    window_map,
    with_prefix,
)

GRIDS = [
    # grid, window, shift
    ((4, 4), (2, 2), (0, 0)),
    ((8, 8), (4, 4), (2, 2)),
    ((6, 9), (3, 3), (0, 1)),
    ((10, 7), (4, 3), (2, 1)),
    ((5, 5), (4, 4), (2, 2)),
    ((3, 5), (4, 5), (0, 0)),
]


def _made(share: bool) -> TokenMap:
    """Two groups of three targets, each from up to two of five tokens; one target has no source."""
    index = torch.tensor([[[0, 3], [4, -1], [-1, -1]], [[1, 1], [2, 0], [3, -1]]])
    return TokenMap(index, 5, share=torch.rand(2, 2, 3, 2, dtype=torch.float64) if share else None)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("extra", [(), (3,), (3, 2)])
def test_gathering(extra: tuple[int, ...]) -> None:
    tokens, x = _made(False), _random(2, 5, *extra)
    each = tokens.gather_each(x)
    assert each.shape == (4, 3, 2, *extra)
    for image, group, target, source in itertools.product(range(2), range(2), range(3), range(2)):
        place = int(tokens.index[group, target, source])
        expected = x[image, place] if place >= 0 else torch.zeros(extra, dtype=torch.float64)
        assert torch.equal(each[image * 2 + group, target, source], expected)
    single = TokenMap(tokens.index[..., :1], 5)
    assert torch.equal(single.gather(x), each[:, :, 0])
    row = _random(2, *extra, 5)
    found = single.gather_row(row)
    assert found.shape == (4, *extra, 3)
    for image, group, target in itertools.product(range(2), range(2), range(3)):
        place = int(tokens.index[group, target, 0])
        assert torch.equal(found[image * 2 + group, ..., target], row[image, ..., place] * (place >= 0))


@pytest.mark.parametrize("extra", [(), (3,), (3, 2)])
@pytest.mark.parametrize("share", [False, True])
def test_scattering(extra: tuple[int, ...], share: bool) -> None:
    tokens, row = _made(share), _random(4, *extra, 3)
    expected = torch.zeros(2, *extra, 5, dtype=torch.float64)
    for image, group, target, source in itertools.product(range(2), range(2), range(3), range(2)):
        place = int(tokens.index[group, target, source])
        if place < 0:
            continue
        weight = 1 / int((tokens.index[group, target] >= 0).sum())
        if tokens.share is not None:
            weight = float(tokens.share[image, group, target, source])
        expected[image, ..., place] += weight * row[image * 2 + group, ..., target]
    torch.testing.assert_close(tokens.scatter(row), expected, rtol=1e-13, atol=1e-13)


def test_present_excludes_padding() -> None:
    assert _made(False).present.tolist() == [[True, True, False], [True, True, True]]


def test_equal_shares_lose_only_padding() -> None:
    row = torch.rand(4, 3, dtype=torch.float64)
    kept = row * _made(False).present.repeat(2, 1)
    torch.testing.assert_close(_made(False).scatter(row).sum(1), kept.reshape(2, -1).sum(1))


@pytest.mark.parametrize(("grid", "size", "shift"), GRIDS)
def test_windows_match_timm(grid: tuple[int, int], size: tuple[int, int], shift: tuple[int, int]) -> None:
    """On images whose pixels encode their position; 0 is padding."""
    places = torch.arange(1, 1 + grid[0] * grid[1]).reshape(1, *grid, 1)
    places = torch.cat([places, places + 1000])  # two images: the windows of the first come first
    rolled = torch.roll(places, (-shift[0], -shift[1]), (1, 2))
    padded = F.pad(rolled, (0, 0, 0, -grid[1] % size[1], 0, -grid[0] % size[0]))
    expected = window_partition(padded, size).flatten(1)
    tokens = window_map(grid, size, shift)
    assert torch.equal(tokens.gather(places.flatten(1)), expected)
    assert tokens.padded == bool((expected == 0).any())
    assert torch.equal(tokens.present.repeat(2, 1), expected > 0)
    # and back
    back = window_reverse(expected.reshape(-1, *size, 1), size, *padded.shape[1:3])[:, : grid[0], : grid[1]]
    assert torch.equal(torch.roll(back, shift, (1, 2)), places)
    assert torch.equal(tokens.scatter(expected.double()), places.flatten(1).double())


@pytest.mark.parametrize(("grid", "size", "shift"), GRIDS)
def test_windows_that_are_padded_first(grid: tuple[int, int], size: tuple[int, int], shift: tuple[int, int]) -> None:
    """As torchvision's and Hugging Face's Swin do: zeros are rolled as well."""
    places = torch.arange(1.0, 1 + grid[0] * grid[1]).reshape(1, *grid, 1)
    padded = F.pad(places, (0, 0, 0, -grid[1] % size[1], 0, -grid[0] % size[0]))
    expected = window_partition(torch.roll(padded, (-shift[0], -shift[1]), (1, 2)), size).reshape(-1, size[0] * size[1])
    assert torch.equal(window_map(grid, size, shift, padded_first=True).gather(places.flatten(1)), expected)


class _Kept(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("grid", [(4, 4), (5, 4), (4, 7), (3, 3), (1, 2)])
def test_merging_matches_timm(grid: tuple[int, int]) -> None:
    """timm's layer with its norm and its linear map taken out concatenates what is merged."""
    merging = PatchMerging(1)
    merging.norm = merging.reduction = _Kept()
    places = torch.arange(1.0, 1 + grid[0] * grid[1]).reshape(1, *grid, 1)
    expected = merging(places)
    tokens = merge_map(grid)
    assert tokens.grid == expected.shape[1:3]
    assert torch.equal(tokens.gather_each(places.flatten(1)).flatten(0, 1), expected.flatten(0, 2))
    assert tokens.padded == bool((expected == 0).any())
    by_rows = merge_map(grid, columns_first=False)
    assert torch.equal(by_rows.index.sort(-1).values, tokens.index.sort(-1).values)
    assert by_rows.index[0, 0].tolist() == [0, 1, grid[1] if grid[0] > 1 else -1, grid[1] + 1 if grid[0] > 1 else -1]


def test_patches_of_other_sizes() -> None:
    assert merge_map((3, 4), (3, 2)).index[0].tolist() == [[0, 4, 8, 1, 5, 9], [2, 6, 10, 3, 7, 11]]


def test_the_tail() -> None:
    tokens, x = tail_map(6, 2), _random(2, 6, 3)
    assert torch.equal(tokens.gather(x), x[:, 2:])
    row = _random(2, 4)
    assert torch.equal(tokens.scatter(row), F.pad(row, (2, 0)))


@pytest.mark.parametrize(("grid", "size", "shift"), GRIDS)
def test_scattering_is_the_adjoint_of_gathering(
    grid: tuple[int, int], size: tuple[int, int], shift: tuple[int, int]
) -> None:
    """``<gather x, r> = <x, scatter r>``; with several sources, of their weighted sum."""
    n = grid[0] * grid[1]
    for tokens in (window_map(grid, size, shift), merge_map(grid), tail_map(n, 1)):
        groups, targets, k = tokens.index.shape
        x, row = _random(2, n), _random(2 * groups, targets)
        for share in (None, _random(2, groups, targets, k)):
            weighted = tokens if share is None else tokens.with_share(share)
            weights = (tokens.index >= 0) / (tokens.index >= 0).sum(-1, keepdim=True).clamp(min=1)
            weights = weights.expand(2, -1, -1, -1) if share is None else share
            gathered = (tokens.gather_each(x) * weights.reshape(2 * groups, targets, k)).sum(-1)
            assert abs(float((gathered * row).sum() - (x * weighted.scatter(row)).sum())) < 1e-11


@pytest.mark.parametrize(
    ("grid", "size", "stride", "padding"),
    [((7, 5), (3, 3), (2, 2), (1, 1)), ((9, 6), (4, 4), (4, 4), (0, 0)), ((4, 6), (3, 2), (1, 2), (1, 0))],
)
def test_convolution_map(
    grid: tuple[int, int], size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    """The tokens that a convolution sums, each by its own weight."""
    tokens, x = convolution_map(grid, size, stride, padding), _random(2, grid[0] * grid[1], 3)
    weight = _random(4, 3, *size)
    expected = F.conv2d(x.transpose(1, 2).unflatten(2, grid), weight, stride=stride, padding=padding)
    assert tokens.grid == expected.shape[2:]
    assert tokens.padded == any(padding)
    found = torch.einsum("btkc,ock->bto", tokens.gather_each(x), weight.flatten(2))
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2))


def test_equal_shares_are_exact() -> None:
    """A third has no short binary form, as a quarter has."""
    row = convolution_map((1, 3), (1, 3), (1, 1)).scatter(torch.ones(1, 1, dtype=torch.float64))
    assert torch.equal(row, torch.full((1, 3), 1 / 3, dtype=torch.float64))


def test_prefix_tokens_remain() -> None:
    tokens, x = with_prefix(convolution_map((3, 4), (2, 2), (2, 2), (1, 0)), 2), _random(2, 14, 3)
    assert tokens.grid == (2, 2)
    each = tokens.gather_each(x)
    assert torch.equal(each[:, :2, 4], x[:, :2])
    assert not each[:, :2, :4].any()
    assert not each[:, 2:, 4].any()
    assert torch.equal(each[:, 2:, :4], convolution_map((3, 4), (2, 2), (2, 2), (1, 0)).gather_each(x[:, 2:]))


def test_dilated_groups() -> None:
    """Of 4 x 6 tokens, groups of 2 x 3: every second row and column."""
    tokens = dilated_map((4, 6), (2, 3))
    assert tokens.index.shape == (4, 6, 1)
    for group, (top, left) in enumerate(itertools.product(range(2), range(2))):
        expected = [row * 6 + column for row in (top, top + 2) for column in (left, left + 2, left + 4)]
        assert tokens.index[group, :, 0].tolist() == expected
    with pytest.raises(ValueError, match="2 x 4 tokens do not divide a grid of 4 x 6"):
        dilated_map((4, 6), (2, 4))


@pytest.mark.parametrize(("grid", "size", "stride"), [((6, 8), 3, 2), ((7, 5), 3, 2), ((5, 6), 3, 1)])
def test_same_map(grid: tuple[int, int], size: int, stride: int) -> None:
    """Against timm's convolution with TensorFlow's padding."""
    tokens, x = same_map(grid, (size, size), (stride, stride)), _random(2, grid[0] * grid[1], 3)
    conv = Conv2dSame(3, 4, size, stride, bias=False, dtype=torch.float64)
    expected = conv(x.transpose(1, 2).unflatten(2, grid))
    assert tokens.grid == expected.shape[2:]
    found = torch.einsum("btkc,ock->bto", tokens.gather_each(x), conv.weight.flatten(2))
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2))


def test_a_token_alone_and_one_that_is_new() -> None:
    x = _random(2, 4, 3)
    assert torch.equal(first_map(4, 1).gather(x), x[:, :1])
    assert torch.equal(preceded_map(4, 1).gather(x), torch.cat([torch.zeros_like(x[:, :1]), x], 1))
    assert torch.equal(preceded_map(4, 1).scatter(torch.arange(5.0)[None]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))


def test_a_copy_on_a_device_takes_its_shares_along() -> None:
    there = _made(True).to(torch.device("meta"))
    assert there.share is not None
    assert (there.index.is_meta, there.share.is_meta) == (True, True)
