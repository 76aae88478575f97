"""What is noted of an attention layer, and made of it."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.attention_notes import AttentionNotes
from captum_astro.capture.capture import capture
from captum_astro.capture.records import spots
from captum_astro.capture.step_notes import Around
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.attention import Softmax
from captum_astro.functional.operations import Recorded
from captum_astro.layouts.base import layout_for
from captum_astro.layouts.structure import AttentionBranch
from tests.capture.making import call_of
from tests.families import build, images


def _branch() -> AttentionBranch:
    branches = [branch for stage in layout_for(build("cls")).stages for branch in stage.branches]
    return next(branch for branch in branches if isinstance(branch, AttentionBranch))


def _call(heads: int = 2, values: int | None = None) -> tuple[Recorded, torch.Tensor]:
    query, key = torch.randn(2, 3, heads, 5, 4, dtype=torch.float64)
    value = torch.randn(3, values or heads, 5, 4, dtype=torch.float64)
    map_ = Softmax(query, key, 0.5)
    return Recorded(map_, value), map_.rows(0, 5) @ value


def test_another_number_of_softmaxes_is_named() -> None:
    notes = AttentionNotes(_branch())
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0\.attn .* ran 0 visible .* where 1 was expected"):
        notes.check()
    notes.note(*_call())
    notes.check()
    notes.note(*_call())
    with pytest.raises(UnsupportedModelError, match="ran 2 visible softmax attentions"):
        notes.check()


def test_what_has_no_heads_is_no_attention() -> None:
    notes, (recorded, output) = AttentionNotes(_branch()), _call()
    notes.note(recorded._replace(value=recorded.value[0, 0]), output)
    notes.note(recorded, output[0, 0])
    assert not notes.outputs


def test_all_heads_of_a_multi_query_attention_have_the_same_values() -> None:
    notes, (recorded, output) = AttentionNotes(_branch()), _call(heads=3, values=1)
    notes.note(recorded, output)
    stream = torch.zeros(3, 5, 8, dtype=torch.float64)
    record = notes.record(0, Around(stream, (2, 2), stream, (2, 2), None))
    assert torch.equal(record.attention.value, recorded.value.expand(-1, 3, -1, -1))
    assert record.prefix == 1
    torch.testing.assert_close(record.attention.rows(0, 5) @ record.attention.value, record.map_outputs[0])


def test_the_tokens_that_are_compared_are_those_that_were_read() -> None:
    model, x = build("cls"), images("cls")
    read: list[torch.Tensor] = []
    model.blocks[0].norm1.register_forward_hook(lambda _, given, output: read.append(output))
    record = capture(call_of(model, x), Wanted()).stages[0].attentions[0]
    assert record.read is not None
    assert torch.equal(record.read, read[0][:, spots(read[0].shape[1])])


def test_a_gate_multiplies_each_querys_output() -> None:
    notes, (recorded, output) = AttentionNotes(_branch()), _call()
    logits = torch.randn(3, 5, 8, dtype=torch.float64)
    notes.note(recorded, output)
    notes.note_gate(logits)
    stream = torch.zeros(3, 5, 8, dtype=torch.float64)
    gate = notes.record(0, Around(stream, (2, 2), stream, (2, 2), None)).gate
    assert gate is not None
    for head in range(2):
        torch.testing.assert_close(gate[:, head], logits[..., 4 * head : 4 * head + 4].sigmoid())


def test_what_is_added_is_kept_as_it_was() -> None:
    """A model may add to the output of a layer in place."""

    class Branch:
        output = nn.Identity()

    branch = cast(Any, Branch())
    branch.output.tokens = lambda x: x
    notes = AttentionNotes.__new__(AttentionNotes)
    notes.branch = branch
    x = torch.ones(1, 2, 3)
    notes.note_output(x)
    x += 1
    assert notes._added is not None
    assert notes._added.eq(1).all()
