"""A model with one part of its attention changed, by hooks: its weights and code stay as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from captum_astro.functional.astromorphic_parts import Parts, parts_of, token_mean
from captum_astro.functional.astromorphic_positions import position_keys
from captum_astro.models.astromorphic import AstromorphicAttention, AstromorphicBlock


@dataclass(frozen=True)
class Memories:
    """The mean memories of a layer over samples: of `Parts.neuron` and `Parts.astro`, without the samples."""

    neuron: torch.Tensor
    astro: torch.Tensor


@dataclass(frozen=True)
class Call:
    """One call of one attention layer.

    Attributes:
        layer: The attention.
        x: The tokens it was given, ``(B, n, dim)``.
        mask: Bool ``(B, n)``, False for padding, or None.
        output: What it returned, ``(B, n, dim)``.
        mean: Mean memories over samples, where they are known.
    """

    layer: Any
    x: torch.Tensor
    mask: torch.Tensor | None
    output: torch.Tensor
    mean: Memories | None = None

    def parts(self, position: torch.Tensor | None) -> Parts:
        """The parts of the call, with these position keys."""
        layer = self.layer
        query, key, value = layer.split_heads(self.x)
        return parts_of(
            query,
            key,
            value,
            position,
            scale=layer.scale,
            alpha=layer.alpha,
            nonlinearity=layer.nonlinearity,
            causal=layer.causal,
            mask=self.mask,
        )

    @property
    def position(self) -> torch.Tensor | None:
        """The position keys of the call."""
        keys: torch.Tensor | None = self.layer.position_keys(self.x.shape[1])
        return keys

    def joined(self, parts: Parts) -> torch.Tensor:
        """What the layer returns for these parts."""
        output: torch.Tensor = self.layer.proj(parts.output.to(self.x.dtype).transpose(1, 2).flatten(2))
        return output


Change = Callable[[Call], torch.Tensor]
"""What a call of the attention returns instead."""


def attentions(model: nn.Module) -> dict[str, nn.Module]:
    """The attention of every astromorphic block, by the name of the block; also where it is softmax.

    Raises:
        ValueError: If the model has no such blocks.
    """
    found = {name: block.attn for name, block in model.named_modules() if isinstance(block, AstromorphicBlock)}
    if not found:
        raise ValueError(f"{type(model).__name__} has no astromorphic blocks, so there are no parts to compare.")
    return found


@contextlib.contextmanager
def changed(model: nn.Module, change: Change, means: dict[str, Memories] | None = None) -> Iterator[None]:
    """Have every attention of a model return something else, until the end of the ``with``.

    Args:
        model: The model.
        change: See `Change`.
        means: Mean memories by the name of the block, from `captum_astro.training.recorded`.
    """

    def hook(name: str) -> Callable[..., torch.Tensor]:
        def replaced(layer: nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            x, mask = (*given, None)[:2]
            return change(Call(layer, x, mask, output, (means or {}).get(name)))

        return replaced

    with contextlib.ExitStack() as stack:
        for name, layer in attentions(model).items():
            stack.callback(layer.register_forward_hook(hook(name)).remove)
        yield


def changes(model: nn.Module) -> dict[tuple[str, str], Change]:
    """The changes that a model allows, by part and by what it is set to.

    A mean of the attention is over tokens: every token is given the mean token's read-out. Means of ``H_neuron`` and
    ``H_astro`` are over samples; of ``W_astro`` and ``M`` over positions, which all have one key then. ``W_astro`` at
    zero is ``H_astro`` at zero; ``M`` at zero leaves ``W_astro = phi(0) = 1``.

    Raises:
        ValueError: If the model has no astromorphic blocks.
    """
    layers = attentions(model).values()
    found: dict[tuple[str, str], Change] = {("attention", "zero"): _nothing, ("attention", "mean"): _mean_read_out}
    if all(isinstance(layer, AstromorphicAttention) for layer in layers):
        found |= {("H_neuron", "zero"): _no_neuron, ("H_neuron", "mean"): _mean_neuron}
        if all(layer.positions is not None for layer in layers):
            found |= {("H_astro", "zero"): _no_astro, ("H_astro", "mean"): _mean_astro}
            found |= {("W_astro", "mean"): _mean_keys, ("M", "zero"): _zero_positions, ("M", "mean"): _mean_positions}
    return found


def _nothing(call: Call) -> torch.Tensor:
    return torch.zeros_like(call.output)


def _mean_read_out(call: Call) -> torch.Tensor:
    return token_mean(call.output, call.mask, call.layer.causal)


def _no_neuron(call: Call) -> torch.Tensor:
    parts = call.parts(call.position)
    return call.joined(replace(parts, neuron=torch.zeros_like(parts.neuron)))


def _no_astro(call: Call) -> torch.Tensor:
    return call.joined(call.parts(None))


def _mean_neuron(call: Call) -> torch.Tensor:
    parts = call.parts(call.position)
    return call.joined(replace(parts, neuron=_known(call).neuron[:, : parts.neuron.shape[2]].expand_as(parts.neuron)))


def _mean_astro(call: Call) -> torch.Tensor:
    parts = call.parts(call.position)
    return call.joined(replace(parts, astro=_known(call).astro[:, : parts.astro.shape[2]].expand_as(parts.astro)))


def _mean_keys(call: Call) -> torch.Tensor:
    # over all positions that M has: those of a shorter text are no mean of their own
    keys = call.layer.position_keys(call.layer.num_tokens).mean(1, keepdim=True)
    return call.joined(call.parts(keys.expand(-1, call.x.shape[1], -1)))


def _zero_positions(call: Call) -> torch.Tensor:
    return _other_positions(call, torch.zeros_like(call.layer.positions))


def _mean_positions(call: Call) -> torch.Tensor:
    memory = call.layer.positions
    return _other_positions(call, memory.mean(-1, keepdim=True).expand_as(memory))


def _other_positions(call: Call, memory: torch.Tensor) -> torch.Tensor:
    return call.joined(call.parts(position_keys(memory, call.x.shape[1], call.layer.position_scale)))


def _known(call: Call) -> Memories:
    if call.mean is None:
        raise ValueError("The mean over samples is not known: pass the means to changed().")
    return call.mean
