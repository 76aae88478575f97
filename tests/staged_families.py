"""Tiny models whose stages have parts of their own kind, and what is expected of their layouts: see `families`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from timm.models.hiera import Hiera
from timm.models.hieradet_sam2 import HieraDet
from timm.models.levit import Levit
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.models.tnt import TNT
from timm.models.volo import VOLO
from timm.models.xcit import Xcit
from torch import nn

_xcit = partial(
    Xcit, img_size=48, patch_size=8, embed_dim=12, depth=2, num_heads=2, mlp_ratio=2, num_classes=5, eta=0.7,
    norm_layer=partial(nn.LayerNorm, eps=0.1),  # a token that is only read normalised has no gradient along itself
)  # fmt: skip

_levit = partial(
    Levit, img_size=(40, 56), stem_type="s8", embed_dim=(8, 12, 16), key_dim=2, depth=(1, 1, 1), num_heads=(4, 4, 4),
    num_classes=5,
)  # fmt: skip

_volo = partial(
    VOLO, layers=[1, 1, 1], img_size=(56, 72), num_classes=5, stem_hidden_dim=8, embed_dims=[8, 12, 12],
    num_heads=[2, 3, 3],
)  # fmt: skip

_tnt = partial(
    TNT, img_size=(24, 40), patch_size=8, num_classes=5, embed_dim=12, inner_dim=4, depth=2, num_heads_inner=2,
    num_heads_outer=3, mlp_ratio=2,
)  # fmt: skip

_hieradet = partial(
    HieraDet, embed_dim=8, num_heads=1, stages=(1, 3, 1), window_spec=(4, 4, 2), q_pool=2, global_att_blocks=(3,),
    init_values=0.5, head_init_scale=1.0, num_classes=5,
)  # fmt: skip


def mvitv2(**kwargs: Any) -> MultiScaleVit:
    defaults = {"depths": (1, 2), "embed_dim": (8, 12), "num_heads": (1, 2), "mlp_ratio": 2}
    """MViTv2 with these options of its configuration."""
    return MultiScaleVit(MultiScaleVitCfg(**(defaults | kwargs)), img_size=64, num_classes=5)


STAGED: dict[str, Callable[[], nn.Module]] = {
    # 6 x 5 tokens from an image that is not whole patches, then a class token
    "xcit": partial(_xcit, tokens_norm=True),
    "xcit_nano": partial(_xcit, tokens_norm=False),
    # 7 x 9 tokens with keys of 2 x 3, then 4 x 5 with keys of 2 x 3; widened by attention, or by the layer before
    "mvitv2": mvitv2,
    "mvitv2_cls": partial(mvitv2, use_cls_token=True, norm_eps=0.1),
    "mvitv2_large": partial(mvitv2, expand_attn=False),
    # 5 x 7 tokens, then 3 x 4, then 2 x 2
    "levit": _levit,
    "levit_conv": partial(_levit, use_conv=True),
    # 7 x 9 tokens in 4 x 5 windows that overlap, then 3 x 4, then a class token
    "volo": _volo,
    # 3 x 5 tokens with 2 x 2 pixels in each, and a class token
    "tnt": _tnt,
    "tnt_legacy": partial(_tnt, legacy=True, global_pool="avg", qkv_bias=True),
    # 8 x 12 tokens in windows of 4, then 4 x 6 in windows of 2, padded windows of 4 and all at once, then 2 x 3
    "hieradet": _hieradet,
    # 8 x 8 tokens, then 4 x 4: maxima beside averages
    "hiera_joined": partial(
        Hiera,
        img_size=(32, 32),
        embed_dim=8,
        num_heads=1,
        stages=(1, 2),
        q_pool=1,
        mask_unit_size=(4, 4),
        mask_unit_attn=(True, False),
        mlp_ratio=2.0,
        num_classes=5,
        head_init_scale=1.0,
        init_values=0.5,
        use_expand_proj=False,
    ),
    "volo_average": partial(_volo, qkv_bias=True, global_pool="avg", use_aux_head=False),
}
SIZES = {"xcit": (43, 37), "xcit_nano": (43, 37)} | dict.fromkeys(("mvitv2", "mvitv2_cls", "mvitv2_large"), (27, 34))
SIZES |= dict.fromkeys(("levit", "levit_conv"), (40, 56)) | dict.fromkeys(("volo", "volo_average"), (56, 72))

SIZES |= dict.fromkeys(("tnt", "tnt_legacy"), (24, 40)) | {"hieradet": (30, 47)}

_LOCAL = ("blocks.0.local_mp and 1 more: its depthwise convolution",)
_MAXIMUM = ("stages.1.blocks.0.shortcut_pool_attn: each channel is the maximum",)
# the grid of each tiny model, and what it is approximate about: parts of the sentences, none if it is exact
EXPECTED: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "xcit": ((6, 5), _LOCAL),
    "xcit_nano": ((6, 5), _LOCAL),
    "mvitv2": ((7, 9), _MAXIMUM),
    "mvitv2_cls": ((7, 9), _MAXIMUM),
    "mvitv2_large": ((7, 9), _MAXIMUM),
    "levit": ((5, 7), ()),
    "levit_conv": ((5, 7), ()),
    "volo": ((7, 9), ()),
    "tnt": ((3, 5), ()),
    "hiera_joined": ((8, 8), ("blocks.1: each channel is the maximum",)),
    "hieradet": ((8, 12), ("blocks.1.pool and 1 more: each channel is the maximum",)),
    "tnt_legacy": ((3, 5), ()),
    "volo_average": ((7, 9), ()),
}
# timm's modules, all of whose names have a layout or are refused with the reason
MODULES = ("xcit", "mvitv2", "levit", "volo", "tnt", "hieradet_sam2")
REFUSED: dict[str, str] = {}
# a name with an option that is refused, and the way out
OPTIONS = [
    ("xcit_nano_12_p16_224", {"global_pool": "avg"}, "Create it with global_pool='token'"),
    ("levit_128s", {"global_pool": ""}, "Create it with global_pool='avg'"),
    ("tnt_s_patch16_224", {"global_pool": ""}, "Create it with global_pool='token' or 'avg'"),
    ("sam2_hiera_tiny", {"global_pool": "max"}, "Create it with global_pool='avg'"),
    ("volo_d1_224", {"global_pool": ""}, "Create it with global_pool='token'"),
    ("mvitv2_tiny", {"global_pool": ""}, "Create it with global_pool='avg'"),
]
