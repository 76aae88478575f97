"""What is recorded, in terms of a layout."""

from __future__ import annotations

import pytest

from captum_astro.capture.early import Early
from captum_astro.capture.wanted import Wanted
from captum_astro.layouts.base import layout_for
from tests.families import build


def test_all_stages_are_recorded_by_default() -> None:
    layout = layout_for(build("cls"))
    assert Wanted().stages(layout) == list(range(len(layout.stages)))


@pytest.mark.parametrize("blocks", [[0], [2], [0, 2], {1}, [], range(1, 3)], ids=str)
def test_stages_of_some_blocks(blocks) -> None:
    layout = layout_for(build("cls"))
    found = Wanted(blocks=blocks).stages(layout)
    assert [layout.stages[stage].block for stage in found] == sorted([*blocks, *blocks])  # attention and feed-forward


def test_stages_of_a_hierarchical_model_have_one_block_each() -> None:
    layout = layout_for(build("swin"))
    numbers = {stage.block for stage in layout.stages}
    found = [Wanted(blocks=[number]).stages(layout) for number in sorted(numbers)]
    assert sorted(stage for stages in found for stage in stages) == list(range(len(layout.stages)))
    assert all(found)


def test_a_pass_is_read_once_or_once_for_each_early_block() -> None:
    assert Wanted().readings == 1
    assert Wanted(early=Early((1,))).readings == 1
    assert Wanted(early=Early((0, 1, 2))).readings == 3
