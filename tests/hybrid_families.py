"""Tiny models with convolutional stages and attention in the last ones; `families.build` draws their weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm2d
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from timm.models.cpubone import CPUBone
from timm.models.efficientformer import EfficientFormer
from timm.models.efficientformer_v2 import EfficientFormerV2
from timm.models.efficientvit_msra import EfficientVitMsra
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from timm.models.iformer import IFormer
from timm.models.lowformer import LowFormer
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.mobilevit import _inverted_residual_block, _mobilevit_block
from timm.models.nextvit import NextViT
from timm.models.shvit import SHViT
from timm.models.visformer import Visformer
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


def _mobilenet(*stages: list[str], **kwargs: Any) -> MobileNetV3:
    return MobileNetV3(
        decode_arch_def(list(stages)), stem_size=8, fix_stem=True, num_features=8, round_chs_fn=round, num_classes=5,
        **kwargs,
    )  # fmt: skip


def _byobnet(*blocks: Any, img_size: tuple[int, int] | None = None, **kwargs: Any) -> ByobNet:
    config = ByoModelCfg(blocks=blocks, **({"stem_chs": 8, "stem_type": "3x3", "stem_pool": ""} | kwargs))
    return ByobNet(config, num_classes=5, img_size=img_size)


def _convolutions(channels: int, depth: int = 1, ratio: float = 1.0) -> ByoBlockCfg:
    return ByoBlockCfg("bottle", d=depth, c=channels, s=2, gs=0, br=ratio)


def _attention(channels: int) -> ByoBlockCfg:
    return ByoBlockCfg("self_attn", d=1, c=channels, s=2, gs=0, br=1.0)


HYBRID: dict[str, Callable[[], nn.Module]] = {
    # 5 x 4 tokens in the last stage only
    "fastvit": partial(_fastvit, layer_scale_init_value=None),
    # MobileCLIP's: attention over 9 x 7 tokens, then 5 x 4, with another norm and layer scale
    "fastvit_mci": partial(
        _fastvit, layers=(1, 1, 1), token_mixers=("repmixer", "attention", "attention"), embed_dims=(8, 32, 64),
        pos_embs=(None, RepConditionalPosEnc, RepConditionalPosEnc), se_downsamples=(False, False, True),
        norm_layer=partial(LayerNorm2d, eps=1e-5), lkc_use_act=True, layer_scale_init_value=0.5,
    ),
    # made for 7 x 7 tokens, after 14 x 14 in blocks that pool
    "efficientformer": partial(
        EfficientFormer, depths=(1, 1, 3), embed_dims=(8, 8, 12), num_vit=2, layer_scale_init_value=0.5, num_classes=5
    ),
    # 4 x 6 tokens in the second stage, then 2 x 3
    "visformer": partial(
        Visformer, img_size=(64, 96), init_channels=8, embed_dim=12, depth=(1, 1, 2), num_heads=2, attn_stage="011",
        spatial_conv="101", group=2, mlp_ratio=2, norm_layer=nn.BatchNorm2d, embed_norm=nn.BatchNorm2d, num_classes=5,
    ),
    # 12 x 9 tokens and keys of 3 x 3, then 6 x 5 tokens; heads share their keys and values, or do not
    "mobilenet": partial(
        _mobilenet, ["er_r1_k3_s2_e2_c8"],
        ["uir_r1_a3_k5_s2_e2_c12", "mqa_r1_k3_h2_s1_v2_d4_c12", "uir_r1_a0_k3_s1_e2_c12"],
        ["uir_r1_a5_k5_s2_e2_c8", "mha_r1_k3_h2_s1_d4_c8", "mqa_r1_k3_h2_s1_d4_c8", "uir_r1_a0_k0_s1_e2_c8"],
        ["cn_r1_k1_s1_c12"], layer_scale_init_value=0.5,
    ),
    # 8 x 12 tokens and 4 x 6 queries, then 4 x 6 tokens; the projection is part of the upsampling
    "lowformer": partial(
        LowFormer, width_list=[8, 8, 12, 12, 60], depth_list=[0, 1, 0, 1, 1], head_widths=(8, 8), num_classes=5
    ),
    # 5 x 7 tokens and 3 x 4 queries, then 3 x 4 tokens, without norms before attention
    "lowformer_unfused": partial(
        LowFormer, width_list=[8, 8, 12, 12, 60], depth_list=[0, 1, 1, 1, 1], head_widths=(8, 8), fused_conv=False,
        attn_mlp=False, num_classes=5,
    ),
    # 5 x 7 tokens and 3 x 4 queries with nearest upsampling, then 3 x 4 tokens and keys of those above and to the left
    "cpubone": partial(
        CPUBone, width_list=[8, 8, 12, 12, 60], depth_list=[0, 1, 1, 1, 1], head_widths=(8, 8), small_kernels=True,
        attn_upsample="nearest", fused_conv=True, num_classes=5,
    ),
    # 5 x 7 tokens, then 3 x 4
    "iformer": partial(
        IFormer, dims=(8, 10, 12, 16), depths=(1, 1, 4, 3), attn_groups=(0, 0, 1, 1),
        attn_head_dim_reduction=(0, 0, 2, 4), layer_scale_init_value=0.5, num_classes=5,
    ),
    # 4 x 8 tokens and 2 x 4 queries, then 2 x 4 tokens
    "efficientformer_v2": partial(
        EfficientFormerV2, depths=(1, 1, 2, 1), img_size=(64, 128), embed_dims=(8, 8, 12, 16), mlp_ratios=2, num_vit=1,
        layer_scale_init_value=0.5, num_classes=5,
    ),
    # 4 x 5 tokens in the second stage, then 2 x 3
    "shvit": partial(
        SHViT, embed_dim=(8, 12, 16), partial_dim=(4, 4, 8), qk_dim=(4, 4, 4), depth=(1, 1, 1), types=("i", "s", "s"),
        num_classes=5,
    ),
    # 6 x 9 tokens in windows of 4, then 3 x 5 in windows of 3
    "efficientvit_msra": partial(
        EfficientVitMsra, img_size=96, embed_dim=(8, 12), key_dim=(4, 4), depth=(1, 1), num_heads=(2, 2),
        window_size=(4, 4), kernels=(5, 3), down_ops=(("", 1), ("subsample", 2)), num_classes=5,
    ),
    # 8 x 12 tokens in patches of 2 x 2, then 4 x 6
    "mobilevit": lambda: _byobnet(
        _inverted_residual_block(d=1, c=8, s=2, br=1.0),
        _mobilevit_block(d=1, c=8, s=2, transformer_dim=8, transformer_depth=1, patch_size=2, br=1.0),
        _mobilevit_block(d=1, c=12, s=2, transformer_dim=12, transformer_depth=2, patch_size=2, br=1.0),
        downsample="", act_layer="silu", num_features=12,
    ),
    # 8 x 8 tokens, then 4 x 4, which are averages of four queries
    "botnet": lambda: _byobnet(
        _convolutions(8), (_convolutions(12), _attention(12)), _attention(16), img_size=(64, 64),
        self_attn_layer="bottleneck", self_attn_kwargs={"num_heads": 2},
    ),
    # 8 x 12 tokens in blocks of 2 x 2 and the tokens around them, then 4 x 6 from every second token
    "halonet": lambda: _byobnet(
        _convolutions(8), (_convolutions(12), _attention(12), _convolutions(12)), _attention(16), act_layer="silu",
        self_attn_layer="halo", self_attn_kwargs={"num_heads": 2, "block_size": 2, "halo_size": 1},
    ),
    # 6 x 12 tokens in blocks of 3 x 3, whose queries are averaged to 3 x 6
    "halonet_averaged": lambda: _byobnet(
        _convolutions(8), _attention(12), _convolutions(12), num_features=12,
        self_attn_layer="halo", self_attn_kwargs={"num_heads": 2, "block_size": 3, "halo_size": 1},
    ),
    # CLIP's: 4 x 6 tokens and their mean are pooled
    "resnet_clip": lambda: _byobnet(
        _convolutions(8), _convolutions(128, 2, 0.0625), img_size=(32, 48), head_type="attn_abs"
    ),
    # 9 x 13 tokens and keys of 16, which leave some out, then 5 x 7 and keys of 4, then 3 x 4
    "nextvit": partial(NextViT, in_chans=3, depths=(1, 1, 5, 1), stem_chs=(8, 8, 8), num_classes=5),
}  # fmt: skip
OTHERS |= {name: partial(_measured, make) for name, make in HYBRID.items()}
SIZES |= dict.fromkeys(("fastvit", "fastvit_mci"), (70, 52))
SIZES |= {"efficientformer": (112, 112), "visformer": (64, 96), "mobilenet": (90, 70)}
SIZES |= {"lowformer": (60, 90), "lowformer_unfused": (70, 100), "cpubone": (70, 100), "iformer": (70, 100)}
SIZES |= {"efficientformer_v2": (64, 128), "shvit": (100, 150), "efficientvit_msra": (96, 130)}
SIZES |= {"mobilevit": (64, 96), "botnet": (64, 64), "halonet": (64, 96), "halonet_averaged": (24, 48)}
SIZES |= {"resnet_clip": (32, 48), "nextvit": (72, 100)}
FIXED = ("efficientformer", "visformer", "efficientformer_v2", "botnet")  # they accept this size only
