"""The weights of a plain Vision Transformer as those of one that pools its patches half-way."""

from __future__ import annotations

import torch
from timm.models.pit import PoolingVisionTransformer
from timm.models.vision_transformer import VisionTransformer

_BINOMIAL = (0.25, 0.5, 0.25)


def start_from(model: PoolingVisionTransformer, plain: VisionTransformer) -> None:
    """Copy the weights of a plain model into a PiT of the same width and depth, with two stages.

    Between its stages, patches are averaged with binomial weights at first, and the class token is kept.

    Args:
        model: The PiT; it is changed.
        plain: The plain model, with a class token.

    Example:
        >>> import timm, captum_astro
        >>> plain = timm.create_model("scenes_vit_tiny_patch4_64")
        >>> start_from(timm.create_model("scenes_pit_tiny_patch4_64"), plain)
    """
    given: dict[str, torch.Tensor] = plain.state_dict()
    state: dict[str, torch.Tensor] = model.state_dict()
    places, grid = given["pos_embed"], tuple(plain.patch_embed.grid_size)
    state["pos_embed"] = places[:, 1:].transpose(1, 2).unflatten(2, grid)
    state["cls_token"] = given["cls_token"] + places[:, :1]
    first = len(model.transformers[0].blocks)
    for name, value in given.items():
        if name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            stage = int(int(block) >= first)
            state[f"transformers.{stage}.blocks.{int(block) - stage * first}.{rest}"] = value
        elif name.startswith(("norm.", "head.")):
            state[name] = value
        elif name.startswith("patch_embed.proj."):
            state[name.replace("proj", "conv")] = value
    kernel, pool = torch.tensor(_BINOMIAL), "transformers.1.pool"
    state[f"{pool}.conv.weight"] = (kernel[:, None] * kernel).expand_as(state[f"{pool}.conv.weight"])
    state[f"{pool}.fc.weight"] = torch.eye(len(state[f"{pool}.fc.weight"]))
    for layer in ("conv", "fc"):
        state[f"{pool}.{layer}.bias"] = torch.zeros_like(state[f"{pool}.{layer}.bias"])
    model.load_state_dict(state)
