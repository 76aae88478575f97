"""Tiny models with convolutional stages and attention in the last ones; `families.build` draws their weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm2d
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from torch import nn

from tests.families import OTHERS, SIZES


def _measured(make: Callable[[], nn.Module]) -> nn.Module:
    """The model, with batch norms whose statistics are far from their defaults."""
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def _fastvit(**kwargs: Any) -> FastVit:
    mixers = ("repmixer", "repmixer", "attention")
    defaults: dict[str, Any] = {
        "layers": (1, 1, 2), "embed_dims": (8, 16, 32), "mlp_ratios": (2,) * 3, "downsamples": (False, True, True),
        "pos_embs": (None, None, RepConditionalPosEnc), "token_mixers": mixers, "se_downsamples": (False,) * 3,
        "num_classes": 5, "cls_ratio": 1.0,
    }  # fmt: skip
    return FastVit(**(defaults | kwargs))


HYBRID: dict[str, Callable[[], nn.Module]] = {
    # 5 x 4 tokens in the last stage only
    "fastvit": partial(_fastvit, layer_scale_init_value=None),
    # MobileCLIP's: attention over 9 x 7 tokens, then 5 x 4, with another norm and layer scale
    "fastvit_mci": partial(
        _fastvit, layers=(1, 1, 1), token_mixers=("repmixer", "attention", "attention"), embed_dims=(8, 32, 64),
        pos_embs=(None, RepConditionalPosEnc, RepConditionalPosEnc), se_downsamples=(False, False, True),
        norm_layer=partial(LayerNorm2d, eps=1e-5), lkc_use_act=True, layer_scale_init_value=0.5,
    ),
}  # fmt: skip
OTHERS |= {name: partial(_measured, make) for name, make in HYBRID.items()}
SIZES |= dict.fromkeys(("fastvit", "fastvit_mci"), (70, 52))
