"""timm's transformer blocks and attention classes, described as stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from timm.layers import LayerScale
from timm.layers.attention import Attention, AttentionRope
from timm.layers.diff_attention import DiffAttention
from timm.models import beit, deepseek_vit, eva
from timm.models import vision_transformer as vit
from timm.models import vision_transformer_relpos as relpos
from torch import nn

from captum_astro.layouts.classes import Class, class_name, registered
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Norm, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage
from captum_astro.layouts.unwrap import python_code

Describe = Callable[[Any, int, str], list[Stage]]


def describe_blocks(blocks: Iterable[nn.Module], name: str = "blocks", first: int = 0) -> list[Stage]:
    """The stages of a sequence of blocks.

    Args:
        blocks: Instances of registered classes or of subclasses of these, such as timm's ``Block``, ``ResPostBlock``,
            ``ParallelScalingBlock``, ``ParallelThingsBlock``, ``EvaBlock``, BEiT's and the relative-position blocks.
        name: The dotted path of the sequence in the model.
        first: The index of its first block.

    Raises:
        UnsupportedModelError: If a block, or the attention inside it, is of another class.
    """
    stages: list[Stage] = []
    named = blocks._modules if isinstance(blocks, nn.Module) else dict(enumerate(blocks))
    for index, (key, given) in enumerate(named.items()):
        path, block = f"{name}.{key}", python_code(given) or given
        describe = registered(_BLOCKS, type(block))
        if describe is None:
            raise UnsupportedModelError(
                f"{path} is a {type(block).__name__}, whose residual adds are not known. Known blocks: "
                f"{', '.join(sorted({class_name(key) for key in _BLOCKS}))}."
            )
        stages += describe(block, first + index, path)
    return stages


def register_block(*block_classes: Class) -> Callable[[Describe], Describe]:
    """Decorator: use this function for these block classes and their subclasses.

    It receives the block, its index and its dotted path, and returns its stages.

    Args:
        block_classes: Subclasses of `torch.nn.Module`, or their dotted paths. An earlier registration is replaced.
    """

    def register(describe: Describe) -> Describe:
        for block_class in block_classes:
            _BLOCKS[block_class] = describe
        return describe

    return register


def _pre_norm(block: Any, index: int, path: str) -> list[Stage]:
    attention = attention_branch(
        block.attn,
        f"{path}.attn",
        _layer_scale(block, 1),
        wide_norm=norm_step(getattr(block.attn, "norm", None)),
        entering=Tap(block.norm1, "output"),
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (feed_forward,))]


def _post_norm(block: Any, index: int, path: str) -> list[Stage]:
    attention = attention_branch(
        block.attn,
        f"{path}.attn",
        norm_step(block.norm1),
        wide_norm=norm_step(getattr(block.attn, "norm", None)),
        entering=Tap(block),
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [Stage(index, Tap(block.attn), (attention,)), Stage(index, Tap(block.mlp), (feed_forward,))]


def _parallel_things(block: Any, index: int, path: str) -> list[Stage]:
    attentions = tuple(
        attention_branch(
            part.attn, f"{path}.attns.{i}.attn", _scale(part.ls), norm_step(part.attn.norm), Tap(part.norm, "output")
        )
        for i, part in enumerate(block.attns)
    )
    feed_forwards = tuple(
        FeedForwardBranch(f"{path}.ffns.{i}.mlp", Tap(part, "output")) for i, part in enumerate(block.ffns)
    )
    return [
        Stage(index, Tap(block.attns[0]), attentions),
        Stage(index, Tap(block.ffns[0]), feed_forwards),
    ]


def _parallel_scaling(block: Any, index: int, path: str) -> list[Stage]:
    dim = block.in_split[-1]
    if block.out_proj is not None:
        # one projection for both: its first columns read the heads, the others the feed-forward layer
        project = Linear(block.out_proj.weight[:, :dim], block.out_proj.bias)
        ffn_tap = Tap(block.mlp_drop, "output")
        ffn_steps: tuple[Step, ...] = (Linear(block.out_proj.weight[:, dim:]),)
    else:
        project = Linear(block.attn_out_proj.weight, block.attn_out_proj.bias)
        ffn_tap, ffn_steps = Tap(block.mlp_out_proj, "output"), ()
    scale = _scale(block.ls)
    heads, weights = block.num_heads, _single
    steps: tuple[Step, ...] = (project, *scale)
    if hasattr(block, "sub_norm"):
        steps = (*_differential_norm(block), *steps)
        weights = _differential_weights(block)

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = block.in_proj.weight
        return weight[-dim:].reshape(heads, dim // heads, -1)

    reads = Tap(block.in_norm, "output")
    attention = AttentionBranch(f"{path}.attn", block, steps, value_weight, weights, reads, reads)
    feed_forward = FeedForwardBranch(f"{path}.mlp", ffn_tap, (*ffn_steps, *scale))
    return [Stage(index, Tap(block.in_norm), (attention, feed_forward))]


_BLOCKS: dict[Class, Describe] = {
    vit.Block: _pre_norm,
    vit.ResPostBlock: _post_norm,
    vit.ParallelThingsBlock: _parallel_things,
    vit.ParallelScalingBlock: _parallel_scaling,
    vit.DiffParallelScalingBlock: _parallel_scaling,
    eva.EvaBlock: _pre_norm,
    eva.EvaBlockPostNorm: _post_norm,
    beit.Block: _pre_norm,
    deepseek_vit.DeepseekVitBlock: _pre_norm,
    relpos.RelPosBlock: _pre_norm,
    relpos.ResPostRelPosBlock: _post_norm,
}
_ATTENTION = (Attention, AttentionRope, DiffAttention, eva.EvaAttention, beit.Attention, relpos.RelPosAttention)


def attention_branch(
    attention: Any,
    name: str,
    after: tuple[Step, ...] = (),
    wide_norm: tuple[Step, ...] = (),
    entering: Tap | None = None,
) -> AttentionBranch:
    """Describe one of timm's self-attention modules.

    Args:
        attention: The module.
        name: Its dotted path.
        after: The steps between its output and the residual stream.
        wide_norm: The norm over all heads before the output projection, if it has one.
        entering: The tokens as they enter the branch, see `AttentionBranch`.

    Raises:
        UnsupportedModelError: If its class is unknown, or it normalises and gates its output.
    """
    if not isinstance(attention, _ATTENTION):
        raise UnsupportedModelError(
            f"{name} is a {type(attention).__name__}, whose heads' outputs are not known to be a sum over tokens. "
            f"Known: {', '.join(c.__name__ for c in _ATTENTION)}."
        )
    if not isinstance(getattr(attention.proj, "weight", None), torch.Tensor):
        raise UnsupportedModelError(
            f"{name}.proj is a {type(attention.proj).__name__} without a weight to read, as in a quantised model or "
            f"under an adapter. Explain the model before it was quantised, or merge its adapter first: "
            f"merge_and_unload() in peft."
        )
    gate = None if getattr(attention, "gate", None) is None else Tap(attention.gate, "output")
    if gate is not None and wide_norm:
        raise UnsupportedModelError(
            f"{name} normalises its heads' outputs before it gates them, which is not described. Build the model "
            f"without scale_norm (scale_attn_norm) or without the gate."
        )
    steps: tuple[Step, ...] = (*wide_norm, Linear(attention.proj.weight, attention.proj.bias), *after)
    weights = _single
    if isinstance(attention, DiffAttention):
        steps, weights = (*_differential_norm(attention), *steps), _differential_weights(attention)
    values = partial(_value_weight, attention)
    return AttentionBranch(name, attention, steps, values, weights, entering=entering, gate=gate)


def _value_weight(attention: Any) -> torch.Tensor:
    heads = int(attention.num_heads)
    if attention.qkv is not None:
        weight: torch.Tensor = attention.qkv.weight
        weight = weight[2 * weight.shape[0] // 3 :]
        return weight.reshape(heads, -1, weight.shape[-1])
    weight = attention.v_proj.weight
    groups = getattr(attention, "num_kv_groups", 1)
    return weight.reshape(heads // groups, -1, weight.shape[-1]).repeat_interleave(groups, dim=0)


def _single() -> tuple[float, ...]:
    return (1.0,)


def _differential_weights(module: Any) -> Callable[[], tuple[float, ...]]:
    return lambda: (1.0, -float(module._compute_lambda()))


def _differential_norm(module: Any) -> tuple[Step, ...]:
    return Norm(module.sub_norm, per_head=True), Scale(1 - module.lambda_init)


def _layer_scale(block: Any, which: int) -> tuple[Step, ...]:
    """LayerScale: timm stores it as a module (``ls1``) or as a parameter (``gamma_1``)."""
    gamma = getattr(block, f"gamma_{which}", None)
    return _scale(getattr(block, f"ls{which}", None)) if gamma is None else (Scale(gamma),)


def _scale(module: nn.Module | None) -> tuple[Step, ...]:
    return (Scale(module.gamma),) if isinstance(module, LayerScale) else ()


def norm_step(module: nn.Module | None) -> tuple[Step, ...]:
    """A norm as a step, if there is one."""
    return () if module is None or isinstance(module, nn.Identity) else (Norm(module),)
