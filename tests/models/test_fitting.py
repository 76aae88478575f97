"""Weights that do not match a model are refused, with the names and shapes that differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro.models.loading import ModelError, load_model
from tests.models.weights_files import NAME, Tensors, written


def _changed(**changes: Any) -> Callable[[Tensors], dict[str, Any]]:
    """The weights with some replaced or, if None, taken away; two underscores stand for a dot."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return lambda state: {key: value for key, value in (state | named).items() if value is not None}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (_changed(norm__bias=None), "does not match weights_vit: missing: norm.bias. Give the name of the model"),
        (
            lambda state: {k: v for k, v in state.items() if not k.startswith("blocks.1.attn.")},
            "missing: blocks.1.attn.qkv.weight, blocks.1.attn.qkv.bias, blocks.1.attn.proj.weight and 1 more. Give",
        ),
        (_changed(adapter__a=torch.ones(2), b=torch.ones(1)), "not expected: adapter.a, b. Give"),
        (_changed(head__weight=None, head__bias=None), "missing: head.weight, head.bias. Give"),
        (
            _changed(norm__bias=torch.ones(23)),
            "of another shape: norm.bias (23,) float32 instead of (24,) float32. Give",
        ),
        (
            _changed(patch_embed__proj__weight=torch.ones(24, 3, 4, 4), pos_embed=torch.ones(1, 65, 24)),
            "of another shape: pos_embed (1, 65, 24) float32 instead of (1, 17, 24) float32, patch_embed.proj.weight",
        ),
        (_changed(norm__bias=torch.ones(24, dtype=torch.int8)), "norm.bias (24,) int8 instead of (24,) float32"),
        (_changed(pre_logits__fc__bias=torch.ones(24)), "not expected: pre_logits.fc.bias"),
        (
            lambda state: {"net." + k: v for k, v in state.items() if k != "norm.bias"},
            "missing: norm.bias (without the prefix 'net.' of the file). Give",
        ),
        (
            lambda state: {"state_dict": {"a.pos_embed": torch.ones(1, 17, 24)}},
            "missing: cls_token, patch_embed.proj.weight, patch_embed.proj.bias and 28 more (without the prefix 'a.'",
        ),
        (lambda state: {"first": state, "second": state}, "holds several weights (first, second): save those you want"),
        (lambda state: {"model": state, "net": state}, "holds several weights (model, net): save those you want in"),
        (
            lambda state: {f"{part}.{k}": v for part in ("a", "b") for k, v in state.items()},
            "holds several weights (a., b.): save those you want in a file of their own.",
        ),
        (
            lambda state: {"epoch": 3, "optimizer": {"lr": 0.1}},
            "holds no weights: give a file that a model's state_dict",
        ),
        (lambda state: list(state.values()), "holds list, not named tensors. Where it was written, save the weights"),
        (
            lambda state: nn.Linear(2, 2),
            "holds torch.nn.modules.linear.Linear, and only tensors are read. Where it was",
        ),
    ],
)
def test_weights_that_do_not_match(tmp_path: Path, form: Callable[[Tensors], Any], message: str) -> None:
    torch.save(form(written().state_dict()), tmp_path / "weights.pt")
    with pytest.raises(ModelError) as found:
        load_model(NAME, checkpoint=tmp_path / "weights.pt")
    assert message in str(found.value)
    assert str(tmp_path / "weights.pt") in str(found.value)
    assert "weights_only" not in str(found.value)
