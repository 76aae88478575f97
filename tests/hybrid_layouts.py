"""What is expected of the layouts of `hybrid_families`, and of those of timm's models of these families."""

from __future__ import annotations

from typing import Any

import timm

# the grid of each tiny model, and what it is approximate about: parts of the sentences, none if it is exact
EXPECTED: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "fastvit": ((5, 4), ("stages.2.blocks.0.mlp and 1 more: its depthwise", "final_conv: its convolutions")),
    "fastvit_mci": (
        (9, 7),
        (
            "stages.1.blocks.0.mlp and 1 more: its depthwise",
            "stages.2.downsample and 1 more: its convolutions",
            "stages.2.pos_emb: this convolution",
        ),
    ),
    "efficientformer": ((7, 7), ()),
    "visformer": ((4, 6), ("stage3.0.mlp and 1 more: its depthwise",)),
    "mobilenet": ((12, 9), ("blocks.1.2: its depthwise", "blocks.2.0: its convolutions")),
    "lowformer": (
        (8, 12),
        ("stages.2.1.attn and 1 more: a transposed", "stages.2.1.local and 1 more: its depth", "stages.3.0: its conv"),
    ),
    "lowformer_unfused": (
        (5, 7),
        ("stages.2.1.attn and 1 more: a transposed", "stages.2.1.local and 1 more: its depth", "stages.3.0: its conv"),
    ),
    "cpubone": ((5, 7), ("stages.2.1.total.1 and 1 more: its depthwise", "stages.3.0: its convolutions")),
    "iformer": (
        (5, 7),
        ("stages.2.blocks.1 and 1 more: a gate", "stages.2.blocks.3: its depth", "stages.3.blocks.0: this conv"),
    ),
    "efficientformer_v2": (
        (4, 8),
        (
            "stages.2.blocks.1.token_mixer: it is computed on a coarser grid",
            "stages.2.blocks.1.mlp and 1 more: its depthwise",
            "stages.3.downsample.attn and 1 more: a convolution of its values",
        ),
    ),
    "shvit": (
        (4, 5),
        (
            "stages.1.blocks.0.conv and 3 more: its depth",
            "stages.2.downsample.2: its conv",
        ),
    ),
    "efficientvit_msra": (
        (6, 9),
        (
            "stages.0.blocks.0.dw0 and 5 more: its depth",
            "stages.0.blocks.0.mixer and 1 more: each head reads",
            "stages.1.downsample.patchmerge: its conv",
        ),
    ),
    "mobilevit": (
        (8, 12),
        ("stages.1.1.conv_proj and 1 more: its last conv", "stages.2.0 and 1 more: its convolutions"),
    ),
    "botnet": ((8, 8), ("stages.2.0.self_attn: an activation",)),
    "halonet": ((8, 12), ("stages.1.2: its conv",)),
    "halonet_averaged": ((6, 12), ("stages.1.0.self_attn: an activation", "stages.2.0: its conv")),
    "resnet_clip": ((4, 6), ()),
    "nextvit": (
        (9, 13),
        (
            "stages.1.blocks.0.mhca and 2 more: its convolutions",
            "stages.2.blocks.0.patch_embed and 1 more: it averages",
            "stages.2.blocks.0.mhca and 3 more: its depthwise",
        ),
    ),
}
_MODULES = (
    "fastvit",
    "efficientformer",
    "efficientformer_v2",
    "visformer",
    "mobilenetv5",
    "lowformer",
    "cpubone",
    "iformer",
    "shvit",
    "efficientvit_msra",
    "byoanet",
    "mobilevit",
    "nextvit",
    "edgenext",
    "efficientvit_mit",
    "repvit",
    "swiftformer",
)
# timm's names, which have a layout or are refused with the reason
NAMED = [
    *(name for module in _MODULES for name in timm.list_models(module=module)),
    *timm.list_models("mobilenetv4*"),
    *timm.list_models("*_clip*", module="byobnet"),
]
REFUSED = dict.fromkeys(("fastvit_t8", "fastvit_t12", "fastvit_s12"), "has no attention")
REFUSED |= dict.fromkeys(timm.list_models("mobilenetv4_conv*"), "has no attention")
REFUSED |= dict.fromkeys(("lowformer_e1", "lowformer_e2"), "has no attention")
REFUSED |= dict.fromkeys(timm.list_models("lambda_resnet*"), "has lambda layers")
REFUSED |= dict.fromkeys(timm.list_models("mobilevitv2*"), "MobileViT v2 multiplies")
REFUSED |= dict.fromkeys(timm.list_models("resnet*_clip_gap"), "has no attention over tokens")
REFUSED |= {"haloregnetz_b": "adds to nothing"}
REFUSED |= dict.fromkeys(timm.list_models(module="edgenext"), "its attention is over channels")
REFUSED |= dict.fromkeys(timm.list_models(module="efficientvit_mit"), "its attention is linear")
REFUSED |= dict.fromkeys(timm.list_models(module="repvit"), "has no attention")
REFUSED |= dict.fromkeys(timm.list_models(module="swiftformer"), "additive attention")
REFUSED |= dict.fromkeys(timm.list_models("mobilenetv5*"), "joins the tokens of two stages")
# a name with an option that is refused, and the way out
OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("fastvit_sa12", {"global_pool": "max"}, "Create it with global_pool='avg'"),
    ("fastvit_sa12", {"fork_feat": True}, "Create it with fork_feat=False"),
    ("efficientformer_l1", {"num_vit": 0}, "Create it with num_vit=1"),
    ("efficientformer_l1", {"global_pool": "", "num_classes": 0}, "Create it with global_pool='avg'"),
    ("shvit_s1", {"types": ("i", "i", "i")}, "Create it with types="),
    ("visformer_tiny", {"attn_stage": "000"}, "Create it with attn_stage='011'"),
    ("mobilenetv4_hybrid_medium", {"global_pool": "max"}, "Create it with global_pool='avg'"),
]
