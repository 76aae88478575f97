"""A change of resolution against loops over its sources, in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from captum_astro.capture.affine import AffineMap
from captum_astro.capture.merging_record import MergingRecord
from captum_astro.functional.token_map import TokenMap, convolution_map, merge_map

B, D, WIDTH = 2, 3, 5
GRID = (4, 6)
MAPS = {"merged": merge_map(GRID), "convolution": convolution_map(GRID, (3, 3), (2, 2), (1, 1))}


def _record(tokens: TokenMap, **given: object) -> MergingRecord:
    torch.manual_seed(0)
    k = tokens.index.shape[2]
    matrix = torch.randn(k * D, WIDTH, dtype=torch.float64)
    constant = torch.randn(WIDTH, dtype=torch.float64)
    residual = torch.randn(B, GRID[0] * GRID[1], D, dtype=torch.float64)
    return MergingRecord(tokens, residual, AffineMap(matrix, constant=constant), **given)


def _sources(record: MergingRecord, target: int) -> list[tuple[int, int]]:
    """The number in the concatenation and the index of each source that is there."""
    return [(number, int(source)) for number, source in enumerate(record.tokens.index[0, target]) if source >= 0]


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_new_tokens_are_sums_of_their_sources_contributions(name: str) -> None:
    record = _record(MAPS[name])
    weight = record.map_out.matrix.reshape(-1, D, WIDTH)
    found, rebuilt = record.contributions(), record.rebuilt()
    for image in range(B):
        for target in range(record.tokens.index.shape[1]):
            expected = torch.zeros(weight.shape[0], WIDTH, dtype=torch.float64)
            for number, source in _sources(record, target):
                expected[number] = record.residual[image, source] @ weight[number]
            _close(found[image, target], expected)
            _close(rebuilt[image, target], expected.sum(0) + record.map_out.constant)


@pytest.mark.parametrize("name", MAPS)
def test_some_of_the_tokens_are_those_of_all(name: str) -> None:
    record = _record(MAPS[name])
    _close(record.contributions([0, 3, 2]), record.contributions()[:, [0, 3, 2]])
    _close(record.rebuilt([4, 1]), record.rebuilt()[:, [4, 1]])
    constant = torch.randn(1, record.tokens.index.shape[1], WIDTH, dtype=torch.float64)
    own = replace(record, map_out=replace(record.map_out, constant=constant))  # another for each token
    _close(own.rebuilt([4, 1]), own.rebuilt()[:, [4, 1]])
    _close(own.rebuilt() - constant, record.rebuilt() - record.map_out.constant)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("averaged", [False, True])
def test_a_maximum_belongs_to_the_source_that_has_it(name: str, averaged: bool) -> None:
    tokens = MAPS[name]
    record = replace(_record(tokens, maximum=True, averaged=averaged), map_out=AffineMap())
    found, rebuilt = record.contributions(), record.rebuilt()
    for image in range(B):
        for target in range(tokens.index.shape[1]):
            there = _sources(record, target)
            values = torch.stack([record.residual[image, source] for _, source in there])
            _close(rebuilt[image, target, :D], values.amax(0))
            for channel, place in enumerate(values.argmax(0)):
                won = torch.zeros(tokens.index.shape[2], dtype=torch.float64)
                won[there[int(place)][0]] = values[place, channel]
                _close(found[image, target, :, channel], won)
            if averaged:
                _close(rebuilt[image, target, D:], values.mean(0))


def test_factors_of_a_norm_belong_to_heads_of_new_tokens() -> None:
    heads = 3
    record = _record(MAPS["merged"])
    scale = torch.rand(B, heads, record.tokens.index.shape[1], dtype=torch.float64) + 0.5
    scaled = replace(record, map_out=replace(record.map_out, query_scale=scale))
    weight = record.map_out.matrix.reshape(-1, D, WIDTH)
    for target in (0, 5):
        for number, source in _sources(record, target):
            for image in range(B):
                token = record.residual[image, source] * scale[image, :, target].repeat_interleave(D // heads)
                _close(scaled.contributions()[image, target, number], token @ weight[number])
    _close(scaled.contributions([5]), scaled.contributions()[:, [5]])


def test_tokens_that_join_come_first_and_are_made_of_no_old_ones() -> None:
    joined = torch.randn(1, 2, WIDTH, dtype=torch.float64)
    index = torch.cat([torch.full((1, 2, 4), -1), MAPS["merged"].index], 1)
    record = _record(TokenMap(index, GRID[0] * GRID[1]), joined=joined)
    plain = _record(MAPS["merged"])
    found = record.rebuilt()
    _close(found[:, :2], (joined + record.map_out.constant).expand(B, -1, -1))
    _close(found[:, 2:], plain.rebuilt())
    _close(record.rebuilt([1, 4]), found[:, [1, 4]])


@pytest.mark.parametrize("name", MAPS)
def test_shares_are_in_proportion_to_lengths(name: str) -> None:
    record = _record(MAPS[name])
    share = record.by_length().share
    assert share.shape == (B, 1, *record.tokens.index.shape[1:])
    for image in range(B):
        for target in range(record.tokens.index.shape[1]):
            lengths = record.contributions()[image, target].norm(dim=-1)
            _close(share[image, 0, target], lengths / lengths.sum())
    _close(share.sum(-1), torch.ones_like(share[..., 0]))


def test_sources_that_give_nothing_have_no_share() -> None:
    record = replace(_record(MAPS["merged"]), residual=torch.zeros(B, GRID[0] * GRID[1], D, dtype=torch.float64))
    assert torch.equal(record.by_length().share, torch.zeros(B, 1, 6, 4, dtype=torch.float64))


def test_a_new_token_s_own_factor_takes_no_part_in_its_shares() -> None:
    record = _record(MAPS["merged"])
    scale = torch.rand(B, 1, 6, dtype=torch.float64) + 0.5
    scaled = replace(record, map_out=replace(record.map_out, query_scale=scale))
    assert torch.equal(scaled.by_length().share, record.by_length().share)


def test_ways_are_by_length_where_asked_and_known() -> None:
    record = _record(MAPS["merged"])
    assert record.ways(by_length=False) is record.tokens
    assert record.ways(by_length=True).share is not None
    assert replace(record, replaced=True).ways(by_length=True) is record.tokens
    assert replace(record, shared=True).ways(by_length=True) is record.tokens


def test_what_a_token_gives_is_what_alike_sources_make() -> None:
    record = _record(MAPS["merged"])
    given = record.given()
    for token in (0, 7):
        alike = replace(record, residual=record.residual[:, token : token + 1].expand(-1, GRID[0] * GRID[1], -1))
        _close(alike.rebuilt()[:, 0] - record.map_out.constant, given[:, token])
    largest = replace(record, maximum=True, map_out=AffineMap())
    assert largest.given() is record.residual
    both = replace(largest, averaged=True).given()
    _close(both, torch.cat([record.residual, record.residual / 4], -1))
