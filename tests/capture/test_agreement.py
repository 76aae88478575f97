"""A pass that disagrees with its layout in one place is refused by the name of that place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from captum_astro.capture.agreement import problem_of
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture
from captum_astro.capture.records import FeedForwardRecord, Pass
from captum_astro.capture.target import LargestOutput
from captum_astro.capture.wanted import Wanted
from captum_astro.layouts.base import Layout, layout_for
from tests.families import build, images

BLOCK = 1


@pytest.fixture
def recorded() -> tuple[Pass, Layout]:
    model = build("cls")
    layout = layout_for(model)
    with torch.no_grad():
        return capture(Call(model, images("cls"), LargestOutput(), (), layout), Wanted(verify=False)), layout


def _changed(passed: Pass, path: str, change: Any) -> Pass:
    """The pass with another record of one branch."""
    stages = list(passed.stages)
    for number, stage in enumerate(stages):
        branches = tuple(change(one) if one.branch.name == path else one for one in stage.branches)
        stages[number] = replace(stage, branches=branches)
    return replace(passed, stages=tuple(stages))


def _louder(record: FeedForwardRecord) -> FeedForwardRecord:
    return replace(record, output=record.output * 1.1)


def _other_tokens_read(record: Any) -> Any:
    return replace(record, read=record.read.flip(1))


def _other_attention(record: Any) -> Any:
    part = record.attention.maps[0]
    return replace(record, attention=replace(record.attention, maps=(replace(part, scale=1.5 * part.scale),)))


def test_a_pass_agrees_with_its_layout(recorded: tuple[Pass, Layout]) -> None:
    passed, layout = recorded
    assert problem_of(passed, layout, {}, passed.readout != 0) is None


@pytest.mark.parametrize(
    ("path", "change", "named"),
    [
        (f"blocks.{BLOCK}.mlp", _louder, f"blocks.{BLOCK}.mlp is something other"),
        (f"blocks.{BLOCK}.attn", _other_attention, f"blocks.{BLOCK}.attn is something other"),
        (f"blocks.{BLOCK}.attn", _other_tokens_read, f"The value projection of blocks.{BLOCK}.attn is something other"),
    ],
    ids=["feed-forward", "attention", "values"],
)
def test_the_layer_that_disagrees_is_named(recorded: tuple[Pass, Layout], path: str, change: Any, named: str) -> None:
    passed, layout = recorded
    problem = problem_of(_changed(passed, path, change), layout, {}, None)
    assert problem is not None
    assert problem.startswith(named)


def test_a_token_that_the_output_should_not_depend_on_is_named(recorded: tuple[Pass, Layout]) -> None:
    passed, layout = recorded
    reached = passed.readout != 0
    reached[1, 3] = True
    problem = problem_of(passed, layout, {}, reached)
    assert problem is not None
    assert problem.startswith("The output depends on final tokens [3]")


def test_the_pooled_vector_is_compared(recorded: tuple[Pass, Layout]) -> None:
    passed, layout = recorded
    normalised = torch.randn_like(passed.stages[-1].following)
    pooled = normalised[:, 0]
    assert problem_of(passed, layout, {"normalised": normalised, "pooled": pooled}, None) is None
    problem = problem_of(passed, layout, {"normalised": normalised, "pooled": 1.1 * pooled}, None)
    assert problem is not None
    assert problem.startswith("The pooled vector")
