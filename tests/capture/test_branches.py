from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.branches import by_outputs
from captum_astro.capture.records import FeedForwardRecord
from captum_astro.functional.token_map import TokenMap, first_map, tail_map
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import FeedForwardBranch


def _record(name: str, outputs: TokenMap | None) -> FeedForwardRecord:
    x = torch.zeros(1, 3, 2)
    return FeedForwardRecord(FeedForwardBranch(name, Tap(nn.Identity())), x, x, outputs)


def test_branches_are_grouped_by_the_tokens_they_change() -> None:
    first, copied = first_map(3, 1), TokenMap(first_map(3, 1).index.clone(), 3)
    one, two, three = _record("one", first), _record("two", tail_map(3, 1)), _record("three", copied)
    assert by_outputs((one, two, three)) == [(one, three), (two,)]


@pytest.mark.parametrize("outputs", [None, first_map(3, 2)], ids=["all", "some"])
def test_tokens_that_two_branches_share_in_part(outputs: TokenMap | None) -> None:
    with pytest.raises(UnsupportedModelError, match="two changes some of the tokens that one changes, but not the"):
        by_outputs((_record("one", first_map(3, 1)), _record("two", outputs)))
