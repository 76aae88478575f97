"""The records of a real pass: what they derive is what the model computed, or a loop over it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from captum_astro import UnsupportedModelError
from captum_astro.capture.capture import capture
from captum_astro.capture.records import AttentionRecord, Pass, spots
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.token_map import window_map
from tests.capture.making import call_of
from tests.families import build, images

PLAIN, WINDOWED = "cls", "swin"


def _pass(name: str, gradient: bool = False) -> Pass:
    return capture(call_of(build(name), images(name)), Wanted(gradient=gradient))


def _attentions(name: str) -> list[AttentionRecord]:
    return [record for stage in _pass(name).stages for record in stage.attentions]


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("tokens", "expected"), [(1, [0, 0, 0]), (2, [0, 1, 1]), (5, [0, 2, 4]), (197, [0, 98, 196])])
def test_the_first_the_middle_and_the_last_token_are_compared(tokens: int, expected: list[int]) -> None:
    assert spots(tokens) == expected


def _added(record: AttentionRecord, include_norm: bool = True) -> torch.Tensor:
    """What attention adds, head by head and query by query, from what the record says of each."""
    value, out, scale = record.transformed(include_norm)
    samples, heads, queries = record.map_outputs[0].shape[:3]
    total = torch.zeros(samples, queries, out.shape[-1], dtype=torch.float64)
    for head in range(heads):
        matrix = out[head] if out.ndim == 3 else out[:, head]
        mixed = record.attention.rows(0, queries)[:, head] @ value[:, head] @ matrix
        total += mixed if scale is None else mixed * scale[:, min(head, scale.shape[1] - 1), :, None]
    return total


def test_the_vectors_of_all_heads_add_up_to_what_the_branch_adds() -> None:
    found = _pass(PLAIN)
    for stage in found.stages:
        for record in stage.attentions:
            constant = record.map_out.constant
            total = _added(record) + (0 if constant is None else constant)
            _close(stage.stream + total, stage.following)


def test_without_norms_the_values_are_those_of_the_plain_stream() -> None:
    for record in _attentions(PLAIN):
        value, _, scale = record.transformed(include_norm=False)
        assert scale is None
        weight = record.value_weight()
        for head in range(weight.shape[0]):
            _close(value[:, head], record.residual @ weight[head].T)


def test_a_projection_that_is_no_linear_map_is_refused_in_words() -> None:
    record = _attentions(PLAIN)[0]
    without = replace(record, branch=replace(record.branch, value_weight=None))
    with pytest.raises(
        UnsupportedModelError, match=r"blocks\.0\.attn are no linear map .* Leave out include_norm=False"
    ):
        without.transformed(include_norm=False)


def test_attention_over_all_tokens() -> None:
    record = _attentions(PLAIN)[0]
    assert record.over_all
    assert record.present is None
    assert record.keys(by_length=True) is None
    assert record.stream is record.residual
    _close(record.equal_queries, torch.full_like(record.equal_queries, 1 / record.attention.queries))
    assert record.patches.tolist() == [[False] * record.prefix + [True] * (record.residual.shape[1] - record.prefix)]
    assert record.projected is record.attention.value


def test_attention_in_windows() -> None:
    for record in _attentions(WINDOWED):
        assert not record.over_all
        assert record.sources is not None
        samples = len(record.attention.value)
        assert record.stream.shape[:2] == (samples, record.attention.value.shape[2])
        windows = record.sources.index.shape[0]
        for sample in (0, samples - 1):
            image, window = divmod(sample, windows)
            for place, source in enumerate(record.sources.index[window, :, 0].tolist()):
                expected = record.residual[image, source] if source >= 0 else torch.zeros_like(record.residual[0, 0])
                _close(record.stream[sample, place], expected)
        weights = record.equal_queries.reshape(3, -1)
        _close(weights.sum(1), torch.ones(3, dtype=torch.float64))
        assert record.patches.all()


def test_padding_has_no_weight_and_is_no_token() -> None:
    record = _attentions(PLAIN)[0]
    tokens = window_map((2, 3), (2, 2))  # the second window has a column of padding
    residual = torch.randn(1, 6, 4, dtype=torch.float64)
    attention = replace(record.attention, value=torch.randn(2, 1, 4, 4, dtype=torch.float64))
    padded = replace(record, residual=residual, attention=attention, outputs=tokens, sources=tokens, prefix=0)
    absent = tokens.index[..., 0] < 0
    assert absent.any()
    assert torch.equal(padded.present, ~absent)
    assert torch.equal(padded.stream[absent], torch.zeros_like(padded.stream[absent]))
    assert torch.equal(padded.equal_queries[absent], torch.zeros(int(absent.sum()), dtype=torch.float64))
    assert padded.equal_queries.sum() == pytest.approx(1)
    assert torch.equal(padded.patches, ~absent)
    whole = replace(padded, sources=replace(tokens, padded=False))
    assert whole.present is None


def test_a_gate_and_an_activation_multiply_each_other() -> None:
    record = _attentions(PLAIN)[0]
    assert record.gates(include_norm=True) is None
    shape = record.map_outputs[0].shape
    gate = torch.rand(shape, dtype=torch.float64)
    gated = replace(record, gate=gate)
    assert gated.gates(include_norm=True) is gate
    factors = torch.rand(shape[0], shape[2], shape[1] * shape[3], dtype=torch.float64)
    vars(gated)["map_out"] = replace(record.map_out, factors=factors)  # as of an activation
    found = gated.gates(include_norm=True)
    for head in range(shape[1]):
        _close(found[:, head], gate[:, head] * factors[..., head * shape[3] : (head + 1) * shape[3]])
    assert gated.gates(include_norm=False) is gate


def test_a_matrix_is_split_by_heads() -> None:
    record = _attentions(PLAIN)[0]
    heads, width = record.attention.value.shape[1], record.attention.value.shape[3]
    matrix = torch.randn(heads * width, 7, dtype=torch.float64)
    for head, part in enumerate(record.per_head(matrix)):
        assert torch.equal(part, matrix[head * width : (head + 1) * width])
    assert record.per_head(matrix.expand(3, -1, -1)).shape == (3, heads, width, 7)
    assert torch.equal(record.per_head(None).reshape(heads * width, -1), torch.eye(heads * width, dtype=torch.float64))


def test_a_stage_says_what_it_keeps() -> None:
    stages = _pass(WINDOWED).stages
    assert all(stage.keeps for stage in stages)
    merging = next(stage for stage in stages if stage.merging is not None)
    assert not replace(merging, merging=replace(merging.merging, replaced=True)).keeps
    assert [len(stage.attentions) for stage in stages if stage.branches][:2] == [1, 0]


def test_the_gradient_is_that_of_the_first_map() -> None:
    record = _pass(PLAIN, gradient=True).stages[0].attentions[0]
    assert record.gradient is record.map_gradients[0]
    assert record.gradient.shape == record.map_outputs[0].shape
