"""Weights under the names that Hugging Face's transformers gives to ViT, DeiT and DINOv2."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

POOLER = "pooler."  # in the files of models without a head, where no classifier uses it

_FIRST = "embeddings.patch_embeddings.projection.weight"
_NAMES = (  # in this order, a pattern and timm's or DINOv2's own name
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
)


def renamed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The tensors under timm's names, or DINOv2's own where timm converts these; None if they are not in this form.

    Queries, keys and values become one matrix, as in timm. Names that are not known keep their own.

    Args:
        tensors: Any tensors; the names may have a prefix such as ``vit.``, which the head's have not.

    Example:
        >>> names = ["vit.embeddings.patch_embeddings.projection.weight", "vit.layernorm.bias", "classifier.bias"]
        >>> list(renamed(dict.fromkeys(names, torch.zeros(2))))
        ['patch_embed.proj.weight', 'norm.bias', 'head.bias']
    """
    root = next((key.removesuffix(_FIRST) for key in tensors if key.endswith(_FIRST)), None)
    if root is None:
        return None
    outer = root[: root.rstrip(".").rfind(".") + 1]  # such as "module." of "module.vit.", which the head has too
    found: dict[str, torch.Tensor] = {}
    for key, value in tensors.items():
        name = key.removeprefix(root if key.startswith(root) else outer)
        for pattern, new in _NAMES:
            name = re.sub(pattern, new, name)
        found[name] = value
    for name in [name for name in found if ".attn.query." in name]:
        three = [name.replace("query", part) for part in ("query", "key", "value")]
        if all(part in found for part in three):
            found[name.replace("query", "qkv")] = torch.cat([found.pop(part) for part in three])
    return found
