"""The comparison of what was recorded with what was computed: it sees each change, and nothing but changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from captum_astro import UnsupportedModelError
from captum_astro.capture.capture import capture
from captum_astro.capture.identity import identity_error, rebuilt_attention, relative, value_error
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, Pass, StageRecord, spots
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.attention import Softmax
from tests.capture.making import call_of
from tests.families import build, images

EPS = torch.finfo(torch.float64).eps


def _passed(name: str = "cls") -> Pass:
    return capture(call_of(build(name), images(name)), Wanted())


def _attention(passed: Pass) -> tuple[StageRecord, AttentionRecord]:
    record = next(record for record in passed.stages if record.attentions)
    return record, record.attentions[0]


def test_relative_errors() -> None:
    expected = torch.tensor([[[4.0, 1.0], [0.5, 0.25]]], dtype=torch.float64)
    found = expected + torch.tensor([[[0.0, 0.0], [0.0, 0.1]]], dtype=torch.float64)
    stream = torch.full_like(expected, 8.0)
    assert relative(found, expected, stream, torch.float64) == pytest.approx(0.1 / 4)
    assert relative(found, expected, stream, torch.float64, each=True) == pytest.approx(0.1 / 0.5)
    assert relative(expected, expected, stream, torch.float64) == 0
    nothing = torch.zeros(1, 2, 2, dtype=torch.float64)
    assert relative(nothing, nothing, nothing, torch.float64, each=True) == 0
    assert relative(nothing + 1, nothing, nothing, torch.float64) == torch.inf


def test_a_difference_within_the_rounding_of_the_stream_is_relative_to_it() -> None:
    stream = torch.full((1, 1, 1), 1e6, dtype=torch.float64)
    added = torch.full_like(stream, 1e-8)  # as by a small LayerScale
    found = added + 2 * EPS * stream
    assert relative(found, added, stream, torch.float64) <= 4 * EPS
    assert relative(added + 10 * EPS * stream, added, stream, torch.float64) > 0.1


def test_the_attention_is_rebuilt_from_its_parts() -> None:
    model, x = build("cls"), images("cls")
    added: list[torch.Tensor] = []
    model.blocks[0].ls1.register_forward_hook(lambda _, given, output: added.append(output))
    _, head = _attention(capture(call_of(model, x), Wanted()))
    torch.testing.assert_close(rebuilt_attention(head), added[0], rtol=1e-12, atol=1e-13)
    places = spots(head.attention.queries)
    torch.testing.assert_close(rebuilt_attention(head, places), added[0][:, places], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["cls", "swin", "levit", "differential", "astromorphic"])
def test_every_stage_of_a_right_layout_agrees_to_rounding(name: str) -> None:
    for record in _passed(name).stages:
        if record.branches or record.merging is not None:
            assert identity_error(record) < 1e-10
            assert identity_error(record, few=True) < 1e-10
        for head in record.attentions:
            assert value_error(head) < 1e-10


def _louder(head: AttentionRecord) -> AttentionRecord:
    return replace(head, attention=replace(head.attention, value=head.attention.value * 1.01))


def _softer(head: AttentionRecord) -> AttentionRecord:
    (part,) = head.attention.maps
    assert isinstance(part, Softmax)
    return replace(head, attention=replace(head.attention, maps=(replace(part, scale=part.scale * 0.9),)))


@pytest.mark.parametrize("change", [_louder, _softer])
def test_another_attention_is_seen(change: Callable[[AttentionRecord], AttentionRecord]) -> None:
    record, head = _attention(_passed())
    others = tuple(branch for branch in record.branches if branch is not head)
    wrong = replace(record, branches=(change(head), *others))
    for few in (False, True):
        assert identity_error(wrong, few=few) > 1e-3


def test_one_token_of_a_feed_forward_layer_is_seen() -> None:
    passed = _passed()
    record = next(r for r in passed.stages if any(isinstance(b, FeedForwardRecord) for b in r.branches))
    (branch,) = record.branches
    assert isinstance(branch, FeedForwardRecord)
    output = branch.output.clone()
    output[-1, -1, -1] += 1e-3 * output.abs().max()
    assert identity_error(replace(record, branches=(replace(branch, output=output),))) > 1e-4


def test_values_of_other_tokens_are_seen() -> None:
    _, head = _attention(_passed())
    assert head.read is not None
    assert value_error(replace(head, read=head.read.flip(1))) > 1e-3
    moved = replace(head, entered=head.read + 0.1)
    assert value_error(moved) > 1e-3


def test_alike_tokens_leave_nothing_to_compare() -> None:
    _, head = _attention(_passed())
    assert head.read is not None
    same = replace(
        head,
        read=head.read[:, :1].expand_as(head.read),
        entered=None,
        attention=replace(head.attention, value=head.attention.value[:, :, :1].expand_as(head.attention.value)),
    )
    assert value_error(same) == 0


def test_something_added_to_a_layer_that_adds_nothing_is_seen() -> None:
    """Relative to a size of zero, any difference is infinitely large."""
    model, x = build("cls"), images("cls")
    torch.nn.init.zeros_(model.blocks[1].mlp.fc2.weight)
    torch.nn.init.zeros_(model.blocks[1].mlp.fc2.bias)
    assert capture(call_of(model, x), Wanted()).problem is None
    model.blocks[1].register_forward_hook(lambda _, given, output: output + 0.1)
    with pytest.raises(UnsupportedModelError, match=r"blocks\.1\.mlp is something other than the layout says"):
        capture(call_of(model, x), Wanted())
