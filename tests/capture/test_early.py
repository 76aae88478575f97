"""The tokens of an earlier block, in the form in which the head reads the final ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import timm
import torch
from torch import nn

from captum_astro.capture.early import Early, as_final, block_ends, mean_in_place
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap


def _layout(final: Tap, pooling: Any = None) -> Layout:
    return cast(Layout, SimpleNamespace(final_stream=final, model=nn.Identity(), pooling=pooling))


MODULE = nn.Identity()
LAST, FIRST = Tap(MODULE, channels="last"), Tap(MODULE, channels="first")
TOKENS = torch.randn(2, 12, 5)
MAP = TOKENS.reshape(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("seen", "tap", "read", "final"),
    [
        (TOKENS, LAST, LAST, TOKENS),
        (MAP, LAST, LAST, TOKENS),
        (TOKENS, LAST, LAST, MAP),
        (MAP, LAST, FIRST, MAP.permute(0, 3, 1, 2)),
        (TOKENS, LAST, FIRST, MAP.permute(0, 3, 1, 2)),
        (MAP.permute(0, 3, 1, 2), FIRST, LAST, MAP),
    ],
    ids=["tokens", "map to tokens", "tokens to map", "to channels first", "tokens to channels first", "from them"],
)
def test_the_form_of_the_final_tokens(seen: torch.Tensor, tap: Tap, read: Tap, final: torch.Tensor) -> None:
    found = as_final(_layout(read), 3, seen, tap, torch.zeros_like(final))
    assert found.shape == final.shape
    assert torch.equal(read.tokens(found), TOKENS)


def test_another_number_of_tokens_or_channels_is_refused() -> None:
    for final in (torch.zeros(2, 6, 5), torch.zeros(2, 12, 10), torch.zeros(2, 6, 10)):
        with pytest.raises(UnsupportedModelError, match=r"those of block 3 are \(12, 5\), which it cannot read"):
            as_final(_layout(LAST), 3, TOKENS, LAST, final)


@pytest.mark.parametrize(("tap", "x"), [(LAST, TOKENS), (LAST, MAP), (FIRST, MAP.permute(0, 3, 1, 2))])
def test_the_mean_in_the_place_of_each_token(tap: Tap, x: torch.Tensor) -> None:
    found = mean_in_place(tap, x)
    assert found.shape == x.shape
    torch.testing.assert_close(tap.tokens(found), TOKENS.mean(1, keepdim=True).expand(-1, 12, -1))
    given = Early((0,), "tokens").given(_layout(tap), x)
    torch.testing.assert_close(given, found)
    for early, layout in ((Early((0,)), _layout(tap)), (Early((0,), "tokens"), _layout(tap, pooling="head"))):
        kept = early.given(layout, x)
        assert torch.equal(kept, x)
        assert kept.data_ptr() != x.data_ptr()  # the head may write into it


def test_where_blocks_end() -> None:
    with torch.device("meta"):
        plain = layout_for(timm.create_model("vit_tiny_patch16_224", depth=3))
        swin = layout_for(timm.create_model("swin_tiny_patch4_window7_224"))
    assert block_ends(plain, list(range(len(plain.stages)))) == {
        block: max(i for i, stage in enumerate(plain.stages) if stage.block == block) + 1 for block in range(3)
    }
    ends = block_ends(swin, list(range(len(swin.stages))))
    assert sorted(ends) == list(range(12))
    for index in ends.values():  # a merging that follows is not part of the block
        assert swin.stages[index - 1].branches
