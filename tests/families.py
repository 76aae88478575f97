"""Tiny models of every supported family, with weights drawn so that errors become visible."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers import AttentionPoolLatent, AttentionPoolPrr, HybridEmbed, RmsNorm
from timm.layers.attention import Attention
from timm.layers.norm import RmsNormFp32
from timm.models.beit import Beit
from timm.models.cait import Cait
from timm.models.convit import ConVit
from timm.models.davit import DaVit
from timm.models.deepseek_vit import DeepseekVitClassifier, DeepseekVitEncoder
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.gcvit import GlobalContextVit
from timm.models.gemma4_vit import Gemma4VitClassifier, Gemma4VitEncoder
from timm.models.hiera import Hiera
from timm.models.maxxvit import MaxxVit, MaxxVitCfg
from timm.models.metaformer import Attention as MetaFormerAttention
from timm.models.metaformer import LayerNorm2dNoBias, LayerNormNoBias, MetaFormer, SepConv
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from timm.models.nest import Nest
from timm.models.pit import PoolingVisionTransformer
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.qwen3_vit import Qwen3VitClassifier, Qwen3VitEncoder
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from timm.models.tiny_vit import TinyVit
from timm.models.twins import Twins
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

from captum_astro.models.astromorphic_vit import AstromorphicVisionTransformer
from tests import staged_families

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}


class _Stem(nn.Module):
    """A convolutional backbone for the hybrid stem."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def _vit(**kwargs: object) -> VisionTransformer:
    return VisionTransformer(**(SMALL | kwargs))


def _eva(**kwargs: object) -> Eva:
    return Eva(**(SMALL | {"use_rot_pos_emb": True} | kwargs))


class Gated(Attention):
    """Attention with a gate, which timm's Vision Transformer has no option for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, gated=True)


def _pooled_by(model: VisionTransformer, pool: nn.Module) -> VisionTransformer:
    """A model with options of its pooling head that it does not set itself."""
    model.attn_pool = pool
    return model


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "cls": _vit,
    "registers": partial(_vit, reg_tokens=4, no_embed_class=True, init_values=0.5),
    "average": partial(_vit, class_token=False, global_pool="avg"),
    "average_with_prefix": partial(_vit, global_pool="avg", pool_include_prefix=True),
    "map_pooling": partial(_vit, class_token=False, global_pool="map"),
    "map_pooling_with_cls": partial(_vit, global_pool="map"),
    "prr_pooling": partial(_vit, global_pool="prr"),
    "clip": partial(_vit, pre_norm=True, no_embed_class=True),
    "qk_norm": partial(_vit, qk_norm=True),
    "scale_norm": partial(_vit, scale_attn_norm=True, scale_mlp_norm=True),
    "no_biases": partial(_vit, qkv_bias=False, proj_bias=False),
    "post_norm": partial(_vit, block_fn=ResPostBlock),
    "parallel_scaling": partial(_vit, block_fn=ParallelScalingBlock, init_values=0.7),
    "parallel_fused_out": partial(_vit, block_fn=partial(ParallelScalingBlock, fuse_out_proj=True)),
    "parallel_things": partial(_vit, block_fn=ParallelThingsBlock, init_values=0.7),
    "differential": partial(_vit, attn_layer="diff", embed_dim=48),
    "differential_parallel": partial(_vit, block_fn=DiffParallelScalingBlock, embed_dim=48),
    "dynamic_rectangular": partial(_vit, dynamic_img_size=True),
    "dynamic_padded": partial(_vit, dynamic_img_size=True, dynamic_img_pad=True),
    "rectangular": partial(_vit, img_size=(32, 48)),
    "hybrid": lambda: _vit(embed_layer=partial(HybridEmbed, _Stem()), patch_size=2),
    "distilled": lambda: VisionTransformerDistilled(**SMALL),
    "beit": lambda: Beit(**SMALL, use_rel_pos_bias=True, init_values=0.5),
    "beit_shared_bias": lambda: Beit(**SMALL, use_shared_rel_pos_bias=True, global_pool="token"),
    "eva": partial(_eva, use_rot_pos_emb=False, init_values=0.5),
    "eva02": partial(_eva, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, qkv_fused=False),
    "eva_post_norm": partial(_eva, use_post_norm=True, swiglu_mlp=True),
    "dinov3": partial(
        _eva,
        attn_type="rope",
        rope_type="dinov3",
        num_reg_tokens=4,
        use_abs_pos_emb=False,
        init_values=0.5,
        dynamic_img_size=True,
        global_pool="token",
    ),
    "grouped_query": partial(
        _eva, attn_type="rope", qkv_fused=False, num_kv_heads=1, attn_only_layer_scale=True, init_values=0.5
    ),
    "eva_map_pooling": partial(_eva, global_pool="map"),
    "relative_position": lambda: VisionTransformerRelPos(**SMALL, init_values=0.5),
    "relative_position_cls": lambda: VisionTransformerRelPos(
        **SMALL, rel_pos_type="bias", class_token=True, global_pool="token", init_values=0.5
    ),
    "relative_position_post_norm": lambda: VisionTransformerRelPos(
        **SMALL, block_fn=ResPostRelPosBlock, init_values=None
    ),
    "naflex": lambda: NaFlexVit(
        NaFlexVitCfg(patch_size=8, embed_dim=24, depth=3, num_heads=3, class_token=True, global_pool="token"),
        num_classes=5,
        img_size=32,
    ),
}
SIZES = {"dynamic_rectangular": (24, 40), "dynamic_padded": (29, 35), "rectangular": (32, 48), "dinov3": (40, 24)}

WINDOWED = {"patch_size": 4, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 3), "num_classes": 5, "mlp_ratio": 2.0}
_swin = partial(SwinTransformer, **WINDOWED)
_swin_v2 = partial(SwinTransformerV2, **WINDOWED)
_swin_v2_cr = partial(SwinTransformerV2Cr, **WINDOWED)
# Models with several resolutions. The comments give the grids of their stages.
HIERARCHICAL: dict[str, Callable[[], nn.Module]] = {
    # 8 x 8 in four windows, shifted in every second block; 4 x 4 in one window
    "swin": partial(_swin, img_size=32, window_size=4),
    # 10 x 10 and 5 x 5, padded to 12 x 12 and 8 x 8
    "swin_padded": partial(_swin, img_size=40, window_size=4),
    # 6 x 12, then 3 x 6, which is shifted along its rows only, then 2 x 3
    "swin_rectangular": partial(
        _swin, img_size=(24, 48), window_size=3, depths=(2, 2, 1), num_heads=(2, 3, 2), qkv_bias=False
    ),
    # 9 x 7, then 5 x 4, then 3 x 2: patches are merged over the edge, windows of unequal sides over the grid
    "swin_odd": partial(
        _swin, img_size=(36, 28), window_size=(4, 3), depths=(2, 3, 2), num_heads=(2, 3, 4), always_partition=True
    ),
    # made for 8 x 8, given 10 x 7
    "swin_dynamic": partial(_swin, img_size=32, window_size=4, dynamic_img_size=True),
    # as S3: different windows in each stage; and a custom head width
    "swin_s3": partial(_swin, img_size=48, window_size=((3, 3), (4, 2)), head_dim=5),
    "swin_v2": partial(_swin_v2, img_size=32, window_size=4),
    # 9 x 10, then 5 x 5
    "swin_v2_padded": partial(_swin_v2, img_size=(36, 40), window_size=4, qkv_bias=False, always_partition=True),
    "swin_v2_dynamic": partial(_swin_v2, img_size=32, window_size=3, dynamic_img_size=True),
    "swin_v2_cr": partial(_swin_v2_cr, img_size=32, window_size=4, init_values=None),
    # 9 x 7, then 5 x 4; a norm of the stream after every second block and after every stage
    "swin_v2_cr_norms": partial(
        _swin_v2_cr, img_size=(36, 28), window_size=3, depths=(3, 3), extra_norm_period=2, extra_norm_stage=True
    ),
}
SIZES |= {
    "swin_padded": (40, 40), "swin_rectangular": (24, 48), "swin_odd": (36, 28), "swin_dynamic": (40, 28),
    "swin_s3": (48, 48), "swin_v2_padded": (36, 40), "swin_v2_dynamic": (28, 40), "swin_v2_cr_norms": (36, 28),
}  # fmt: skip

_pit = partial(
    PoolingVisionTransformer, img_size=(40, 24), patch_size=8, stride=4, base_dims=(6, 6, 12), depth=(2, 1, 1),
    heads=(2, 4, 4), mlp_ratio=2, num_classes=5,
)  # fmt: skip
_twins = partial(
    Twins, img_size=40, embed_dims=(12, 16), num_heads=(2, 2), mlp_ratios=(2, 2), depths=(2, 3), sr_ratios=(4, 2),
    num_classes=5,
)  # fmt: skip
_davit = partial(
    DaVit, depths=(1, 2, 1), embed_dims=(8, 12, 16), num_heads=(2, 2, 2), window_size=3, mlp_ratio=2, num_classes=5
)

_nest = partial(
    Nest, img_size=24, patch_size=2, num_levels=2, embed_dims=(8, 12), num_heads=(2, 3), depths=(2, 1), mlp_ratio=2,
    num_classes=5,
)  # fmt: skip

_hiera = partial(
    Hiera, img_size=(32, 64), embed_dim=8, num_heads=1, stages=(2, 2, 2), q_pool=2, mask_unit_size=(4, 4),
    mask_unit_attn=(True, True, False), mlp_ratio=2.0, num_classes=5, head_init_scale=1.0,
)  # fmt: skip


def _maxvit(**kwargs: Any) -> MaxxVit:
    defaults = {
        "transformer_dim_head": 4, "transformer_rel_pos_type": "bias", "transformer_window_size": (3, 2),
        "transformer_grid_size": (3, 2), "transformer_expand_ratio": 2, "conv_expand_ratio": 2,
    }  # fmt: skip
    cfg = MaxxVitCfg(embed_dim=(8, 16), depths=(1, 2), stem_width=8)
    return MaxxVit(cfg, img_size=(24, 32), num_classes=5, **(defaults | kwargs))


# Models whose tokens also pass through convolutions, poolings or reduced keys.
MIXED: dict[str, Callable[[], nn.Module]] = {
    # 10 x 13, then 5 x 7, then 3 x 4 tokens; keys of 4 x 4 and 2 x 2 tokens, which do not divide the grids
    "pvt_v2": lambda: PyramidVisionTransformerV2(
        depths=(2, 2, 1), embed_dims=(12, 16, 24), num_heads=(2, 2, 3), sr_ratios=(4, 2, 1), mlp_ratios=(2, 2, 2),
        num_classes=5,
    ),
    # 10 x 8 in windows of 4, and keys of 4 x 4 tokens; 5 x 4 in windows of 2, and keys of 2 x 2
    "twins_svt": partial(_twins, wss=(4, 2)),
    # 9 x 7 tokens and keys of 3 x 3, then 4 x 3 tokens: the last row of the first stage is seen by its keys only
    "twins_pcpvt": partial(_twins, wss=None, sr_ratios=(3, 2)),
    # 10 x 8 in windows of 3, then 5 x 4, then 3 x 2 tokens, each patch of 2 x 2 merged
    "davit": partial(_davit),
    # Florence's: 7 x 9, then 4 x 5, then 2 x 3 tokens, overlapping patches; the first layer is over channels
    "davit_overlapping": partial(
        _davit, down_kernel_size=3, channel_attn_v2=True, named_blocks=True, cpe_act=True, head_norm_first=True,
        attn_types=("channel", "spatial"),
    ),
    # 12 x 16 tokens leave the stem, then 6 x 8 and 3 x 4: in windows and dilated groups of 3 x 2
    "maxvit": partial(_maxvit, block_type=("M", "M")),
    "maxvit_tf": partial(
        _maxvit, block_type=("M", "M"), transformer_head_first=False, transformer_rel_pos_type="bias_tf",
        conv_padding="same", head_hidden_size=12,
    ),
    "maxxvit": partial(
        _maxvit, block_type=("M", "M"), conv_block_type="convnext", conv_norm_layer="layernorm2d",
        transformer_use_nchw_attn=True, transformer_init_values=0.5, transformer_no_block_attn=True,
    ),
    "coatnet": partial(_maxvit, block_type=("C", "T"), depths=(2, 2), transformer_init_values=0.5),
    # 12 x 12 tokens in blocks of 6 x 6, then one block
    "nest": partial(_nest, pad_type=""),
    "nest_jx": partial(_nest, pad_type="same"),
    # 8 x 12 and 4 x 6 tokens, in windows of 4 x 6 and 2 x 3
    "gcvit": partial(
        GlobalContextVit, img_size=(32, 48), window_size=((4, 6), (2, 3)), embed_dim=8, depths=(2, 2), num_heads=(2, 4),
        mlp_ratio=2, layer_scale=0.5, num_classes=5,
    ),
    # 9 x 7, then 5 x 4 and 3 x 2 tokens, in padded windows of 3 and in one window of 2 x 2 after the other
    "tiny_vit": partial(
        TinyVit, embed_dims=(8, 12, 16), depths=(2, 2, 1), num_heads=(2, 2, 2), window_sizes=(3, 3, 2), mlp_ratio=2,
        mbconv_expand_ratio=2, num_classes=5,
    ),
    # 8 x 16 tokens in mask units of 4 x 4, then 4 x 8 in units of 2 x 2, then 2 x 4 tokens that all see each other
    "hiera": partial(_hiera, init_values=0.5),
    "hiera_windows": partial(_hiera, abs_win_pos_embed=True, global_pos_size=(3, 3), q_pool=1),
    # 7 x 9 tokens in convolutional blocks, then 4 x 5
    "caformer": partial(
        MetaFormer, depths=(2, 2), dims=(8, 12), token_mixers=[SepConv, MetaFormerAttention],
        norm_layers=[LayerNorm2dNoBias, LayerNormNoBias], layer_scale_init_values=0.5,
        res_scale_init_values=(None, 1.0), head_dim=4, num_classes=5,
    ),
    # 5 x 3 tokens, then a class token
    "cait": lambda: Cait(
        img_size=(40, 24), patch_size=8, embed_dim=12, depth=2, num_heads=3, mlp_ratio=2, num_classes=5, init_values=0.5
    ),
    # 4 x 4 tokens, and a class token after two blocks
    "convit": lambda: ConVit(
        img_size=32, patch_size=8, embed_dim=4, depth=3, num_heads=3, mlp_ratio=2, local_up_to_layer=2, num_classes=5
    ),
    # patches that overlap: 9 x 5, 5 x 3, then 3 x 2 tokens
    "pit": partial(_pit, distilled=False),
    "pit_distilled": partial(_pit, distilled=True),
}  # fmt: skip
OTHERS: dict[str, Callable[[], nn.Module]] = {}  # of test modules that describe their own
SIZES |= {
    "pvt_v2": (37, 51),
    "pit": (40, 24),
    "pit_distilled": (40, 24),
    "twins_svt": (40, 32),
    "twins_pcpvt": (39, 31),
}

SIZES |= {"davit": (38, 29), "davit_overlapping": (28, 36)}

SIZES |= dict.fromkeys(("maxvit", "maxvit_tf", "maxxvit", "coatnet"), (24, 32))

SIZES |= dict.fromkeys(("nest", "nest_jx"), (24, 24))

SIZES |= {"gcvit": (32, 48)}

SIZES |= {"tiny_vit": (34, 28)}

SIZES |= dict.fromkeys(("hiera", "hiera_windows"), (32, 64))

SIZES |= {"caformer": (30, 37)}

SIZES |= {"cait": (40, 24)}

MIXED |= staged_families.STAGED
SIZES |= staged_families.SIZES
_sam = partial(
    VisionTransformerSAM, img_size=40, patch_size=8, embed_dim=12, depth=3, num_heads=2, num_classes=5, mlp_ratio=2,
    window_size=3, global_attn_indexes=(1,), use_rel_pos=True, neck_chans=8,
)  # fmt: skip
_encoder = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
_qwen3 = _encoder | {"pos_embed_grid_size": 3}
_gemma4 = {
    "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 4, "head_dim": 8, "intermediate_size": 24,
    "position_embedding_size": 8, "pooling_kernel_size": 2,
}  # fmt: skip


def _in_its_precision(model: nn.Module) -> nn.Module:
    """Norms that timm computes in float32, whose rounding would hide errors, in the precision of the model."""
    for module in model.modules():
        if isinstance(module, RmsNormFp32):
            module.__class__, module._fast_norm = RmsNorm, False
    return model


# Pooling heads and attention with options that no registered model has.
UNREGISTERED: dict[str, Callable[[], nn.Module]] = {
    "map_pooling_positions": lambda: _pooled_by(
        _vit(class_token=False, global_pool="map"),
        AttentionPoolLatent(
            24,
            num_heads=3,
            feat_size=16,
            pos_embed="abs",
            latent_len=2,
            pool_type="avg",
            norm_layer=nn.LayerNorm,
            qk_norm=True,
            q_proj=False,
        ),
    ),
    "gated": partial(_vit, attn_layer=Gated, init_values=0.5),
    "prr_pooling_norms": lambda: _pooled_by(
        _vit(global_pool="prr"), AttentionPoolPrr(24, 3, "avg", pre_norm=True, post_norm=True)
    ),
}
# Encoders of image patches whose tokens may be merged after the last block.
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    # 5 x 4 tokens, in padded windows of 3 x 3 and all together; the neck's convolution sees 3 x 3
    "sam": partial(_sam, init_values=0.5),
    "sam_plain_neck": partial(_sam, use_abs_pos=False, neck_chans=None, qk_norm=True),
    "sam_rope": partial(_sam, embed_dim=16, use_rel_pos=False, use_rope=True, head_hidden_size=8),
    # 4 x 6 tokens; cells of 2 x 2
    "qwen3": lambda: Qwen3VitClassifier(**_qwen3, num_classes=5),
    "qwen3_merge": lambda: Qwen3VitClassifier(**_qwen3, num_classes=5, encoder_pool="merge", out_features=9),
    "qwen3_encoder": lambda: Qwen3VitEncoder(**_qwen3, out_features=9),
    "qwen3_features": lambda: Qwen3VitEncoder(**_qwen3, global_pool=""),
    # 4 x 5 tokens; cells of 3 x 3, padded
    "deepseek": lambda: _in_its_precision(DeepseekVitClassifier(**_encoder, num_classes=5, dynamic_img_pad=True)),
    "deepseek_align": lambda: _in_its_precision(
        DeepseekVitClassifier(**_encoder, num_classes=5, encoder_pool="align", out_features=9)
    ),
    "deepseek_encoder": lambda: _in_its_precision(DeepseekVitEncoder(**_encoder, out_features=9)),
    "gemma4": lambda: Gemma4VitClassifier(**_gemma4, num_classes=5, num_kv_heads=2, use_clipped_linears=True),
    "gemma4_encoder": lambda: Gemma4VitEncoder(**_gemma4, standardize=True),
}
SIZES |= dict.fromkeys(("sam", "sam_plain_neck"), (40, 32)) | {"sam_rope": (40, 40)}
SIZES |= dict.fromkeys(
    ("qwen3", "qwen3_merge", "qwen3_encoder", "qwen3_features", "gemma4", "gemma4_encoder"), (32, 48)
)
SIZES |= {"deepseek": (29, 35), "deepseek_align": (32, 40), "deepseek_encoder": (32, 40)}


def build(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model in eval mode whose weights, norms, biases and LayerScale are all far from their defaults."""
    torch.manual_seed(0)
    model = (HIERARCHICAL | FAMILIES | MIXED | OTHERS | ENCODERS | UNREGISTERED)[name]().eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "lambda" in path:
                continue
            if parameter.ndim > 1:
                parameter.normal_(std=1.2 * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        for buffer in model.buffers():
            if buffer.is_floating_point() and buffer.ndim == 1 and buffer.numel() in (8, 12):
                buffer.add_(torch.rand_like(buffer))
    return model.to(dtype)


def images(name: str, batch: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Images of a size that the model accepts."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *SIZES.get(name, (32, 32)), generator=generator, dtype=torch.float64).to(dtype)


class HandWritten(Attention):
    """Attention with an explicit softmax, as in many custom models."""

    def forward(self, x: torch.Tensor, attn_mask: object = None, is_causal: bool = False) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attention = self.attn_drop(((q * self.scale) @ k.transpose(-2, -1)).softmax(-1))
        return self.proj((attention @ v).transpose(1, 2).reshape(batch, tokens, -1))


FAMILIES["written_out"] = partial(_vit, attn_layer=HandWritten)
_astromorphic = partial(AstromorphicVisionTransformer, **SMALL)
FAMILIES |= {
    "astromorphic": _astromorphic,
    "astromorphic_average": partial(
        _astromorphic, class_token=False, global_pool="avg", nonlinearity="none", alpha=1.0, stem_width=8,
        final_activation=True,
    ),
    "astromorphic_outside": partial(
        _astromorphic, nonlinearity="outside", relative_position=False, output_projection=True, qkv_bias=True
    ),
    "astromorphic_softmax": partial(_astromorphic, attention="softmax"),
}  # fmt: skip
EFFECTIVE = ("astromorphic", "astromorphic_average", "astromorphic_outside")  # attention without a softmax
