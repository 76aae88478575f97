"""Opened attention modules compute what the closed ones do, and their layers are called."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from captum_astro.capture.opened import OpenedAttention, open_attention


def _opened(module: nn.Module) -> nn.Module:
    opened = copy.deepcopy(module)
    open_attention(opened)
    return opened


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("call", [{"need_weights": False}, {}, {"average_attn_weights": False}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True},
        {"batch_first": False},
        {"batch_first": True, "bias": False},
        {"batch_first": True, "kdim": 8, "vdim": 10},
        # what is not opened stays as it is
        {"batch_first": True, "add_bias_kv": True},
        {"batch_first": True, "add_zero_attn": True},
    ],
    ids=str,
)
def test_multihead_attention(options: dict[str, Any], call: dict[str, Any]) -> None:
    module = nn.MultiheadAttention(12, 3, **options).double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = [_random(2, n, size) for n, size in ((4, 12), (5, options.get("kdim", 12)), (5, options.get("vdim", 12)))]
    given = x if options["batch_first"] else [one.transpose(0, 1) for one in x]
    opened = _opened(module)
    assert type(opened) is OpenedAttention
    for found, expected in zip(opened(*given, **call), module(*given, **call), strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("masks", ["attn_mask", "key_padding_mask", "is_causal", "unbatched"])
def test_masks_and_single_samples_stay_as_they_are(masks: str) -> None:
    module, x = nn.MultiheadAttention(12, 3, batch_first=True).double().eval(), _random(2, 4, 12)
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    call = {
        "attn_mask": {"attn_mask": causal},
        "key_padding_mask": {"key_padding_mask": torch.tensor([[False, False, True, True]] * 2)},
        "is_causal": {"attn_mask": causal, "is_causal": True},
        "unbatched": {},
    }[masks]
    x = x[0] if masks == "unbatched" else x
    torch.testing.assert_close(_opened(module)(x, x, x, **call)[0], module(x, x, x, **call)[0])


def test_dropout_in_train_mode() -> None:
    module, x = nn.MultiheadAttention(12, 3, dropout=1.0, batch_first=True).double(), _random(2, 4, 12)
    assert torch.equal(_opened(module)(x, x, x, need_weights=False)[0], module.out_proj(torch.zeros_like(x)))


@pytest.mark.parametrize("kind", [nn.MultiheadAttention, ShiftedWindowAttention, ShiftedWindowAttentionV2])
def test_hooks_of_the_projection_run(kind: Any) -> None:
    if kind is nn.MultiheadAttention:
        module, x = kind(12, 3, batch_first=True), [torch.randn(2, 4, 12)] * 3
        projection = "out_proj"
    else:
        module, x, projection = kind(12, [4, 4], [2, 2], 3), [torch.randn(2, 6, 7, 12)], "proj"
    opened, called = _opened(module.eval()), []
    opened.get_submodule(projection).register_forward_hook(lambda *_: called.append(projection))
    found, expected = opened(*x), module(*x)
    torch.testing.assert_close(found, expected)
    assert called == [projection]
