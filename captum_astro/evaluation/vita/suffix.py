"""Running a model from one of its layers on, under many astrocyte settings in one batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from captum_astro.astro.astrocytic_linear import Token, watched_token
from captum_astro.astro.layers import find_layer, watched
from captum_astro.functional.astrocyte import Modulation, modulation_factors, rescaled
from captum_astro.layouts.unwrap import unwrapped

Cut = Literal["layer", "block", "none"]


class Suffix:
    """The part of a model after a linear layer, for several modulations of the layer in one batch.

    The blocks before the one with the layer do not run again: their result is stored. If the block allows it, neither
    does the part of the block before the layer. Nothing of the model is changed or copied except the few containers on
    the path to the block.

    Args:
        model: The model.
        layer: The linear layer, as in `captum_astro.ViTA`.
        token: The monitored token, as in `captum_astro.ViTA`.
        cut: ``"layer"``, or ``"block"`` if the layer's output must have the batch dimension first, or ``"none"``.
    """

    def __init__(self, model: nn.Module, layer: str | None, cut: Cut, token: Token = "auto") -> None:
        self._model = unwrapped(model)
        self.layer = find_layer(self._model, layer)
        self._linear: Any = self._model.get_submodule(self.layer)
        self._token = watched(self._model, token)
        self._block = _block_of(self._model, self.layer) if cut != "none" else None
        self._cut: Cut = cut if self._block is not None else "none"

    def enters(self) -> nn.Module | None:
        """The module whose first argument is to be stored from a plain pass; None if everything must run."""
        return None if self._block is None else self._model.get_submodule(self._block)

    def modulated(self, entering: torch.Tensor | None, modulations: Sequence[Modulation]) -> nn.Module:
        """A module that takes ``B`` images and returns the output of each under each modulation, ``S * B`` rows.

        Args:
            entering: The input of the module of `enters` in a plain pass of the same images.
            modulations: S modulations, with one kind of rescaling.
        """
        model = self._model
        if self._block is not None:
            assert entering is not None
            entry = _Entry(model.get_submodule(self._block), entering, self, list(modulations), self._cut)
            model = _with_entry(model, self._block, entry)
        return _Many(model, None if self._block is not None else self, list(modulations))

    def modulate(self, x: torch.Tensor, plain: torch.Tensor, modulations: list[Modulation], images: int) -> Any:
        """The layer's output for every modulation: ``(S, R, ...)``; ``(S * R, ...)`` if x has S times the rows."""
        tokens = x.reshape(images, -1, x.shape[-1])
        many = len(modulations)
        spread = images // many if self._cut != "layer" else images
        watched = watched_token(tokens, self._token)
        parts = watched.split(spread) if self._cut != "layer" else [watched] * many
        factors = torch.stack([modulation_factors(p, m) for p, m in zip(parts, modulations, strict=True)])
        tokens = tokens.reshape(-1, spread, *tokens.shape[1:])
        changed = self._linear.forward(tokens * factors[:, :, None])
        form = modulations[0].rescale
        if form != "none":
            like = plain.reshape(tokens.shape[0], spread, -1, plain.shape[-1])
            changed = rescaled(changed, like.expand_as(changed), form)
        return changed.reshape(many, *plain.shape) if self._cut == "layer" else changed.reshape(plain.shape)


class _Entry(nn.Module):
    """Replaces the block with the layer: starts from what was stored, and continues with S times the batch."""

    def __init__(
        self, block: nn.Module, entering: torch.Tensor, suffix: Suffix, modulations: list[Modulation], cut: Cut
    ) -> None:
        super().__init__()
        self.block = block
        self._given = entering, suffix, modulations, cut

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        entering, suffix, modulations, cut = self._given
        many = len(modulations)
        rows = entering if cut == "layer" else entering.repeat(many, *[1] * (entering.ndim - 1))

        def hook(module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
            changed: torch.Tensor = suffix.modulate(given[0], output, modulations, len(rows))
            return changed

        handle = suffix._linear.register_forward_hook(hook)
        try:
            out: torch.Tensor = self.block(rows, *args, **kwargs)
        finally:
            handle.remove()
        return out.flatten(0, 1) if cut == "layer" else out


class _Many(nn.Module):
    """The model with its entry, or the whole model on a repeated batch."""

    def __init__(self, model: nn.Module, suffix: Suffix | None, modulations: list[Modulation]) -> None:
        super().__init__()
        self.model = model
        self._given = suffix, modulations

    def forward(self, images: torch.Tensor) -> Any:
        suffix, modulations = self._given
        if suffix is None:
            return self.model(images)
        rows = images.repeat(len(modulations), 1, 1, 1)
        handle = suffix._linear.register_forward_hook(
            lambda module, given, output: suffix.modulate(given[0], output, modulations, len(rows))
        )
        try:
            return self.model(rows)
        finally:
            handle.remove()


class _Skip(nn.Module):
    """Replaces a block whose result is known."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return x


def _block_of(model: nn.Module, layer: str) -> str | None:
    """The path of the outermost numbered block that contains the layer, below the model that has blocks."""
    inside = next((name for name, module in model.named_modules() if hasattr(module, "feature_info")), "")
    start = len(inside.split(".")) if inside else 0
    parts = layer.split(".")
    for index in range(start + 1, len(parts)):
        container = model.get_submodule(".".join(parts[:index]))
        if parts[index].isdigit() and isinstance(container, nn.Sequential | nn.ModuleList):
            return ".".join(parts[: index + 1])
    return None


def _with_entry(model: nn.Module, block: str, entry: nn.Module) -> nn.Module:
    """The model with the entry in place of a block, and nothing before it in its container. Weights are shared."""
    *way, index = block.split(".")
    root = current = _shallow(model)
    for name in way:
        child = _shallow(current._modules[name])
        current._modules[name] = child
        current = child
    for name in list(current._modules):
        if int(name) < int(index):
            current._modules[name] = _Skip()
    current._modules[index] = entry
    return root


def _shallow(module: nn.Module | None) -> nn.Module:
    assert module is not None
    clone = copy.copy(module)
    clone.__dict__["_modules"] = dict(module._modules)
    return clone
