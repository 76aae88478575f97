"""A pass that shows where the places of the image are in the tensors of a model, whatever its weights are.

The order of the axes and of the tokens follows from a model's code alone. The pass therefore replaces what would blur
the places: the weights by random ones with which the residual stream dominates, convolutions by one of their pixels,
and attention and gates as `LocalMode` does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from captum_astro.capture.call import Call
from captum_astro.capture.hooks import Hooks
from captum_astro.capture.local_mode import LocalMode
from captum_astro.capture.replica import Replica
from captum_astro.functional.places import changed_images
from captum_astro.layouts.steps import Tap

SAMPLES = 4  # of `changed_images`
_CHANGE = {torch.float64: 1e-5, torch.float32: 3e-3}  # small enough for derivatives, large enough for the precision
GAINS = (0.05, 0.3)  # of linear layers: small if they mix tokens, larger if many follow each other


class Reached(BaseException):
    """Raised by a callback of `probe` to end the pass; no wrapper may catch it."""


def probe(
    call: Call,
    explained: nn.Module,
    taps: Iterable[Tap],
    use: Callable[[Tap, torch.Tensor], None],
    gain: float = GAINS[0],
) -> None:
    """Run a model on `changed_images`, and call back with each tap's tensor ``(4, ...)``.

    Args:
        call: The model and its inputs.
        explained: The model inside that receives the images.
        taps: The tensors to observe.
        use: Receives a tap and its tensor, each time that it occurs.
        gain: That of linear layers; one of `GAINS`.
    """
    dtype = torch.float32 if call.inputs.device.type == "mps" else torch.float64
    first = call.inputs[:1].to(dtype).expand(SAMPLES, *call.inputs.shape[1:])
    arguments = tuple(_repeated(value, len(call.inputs)) for value in call.arguments)
    replica, images = Replica(call.model, dtype), _Images()  # of its own, which may keep something of the weights
    weights = _local_weights(replica.model, gain, dtype)
    for module in replica.model.modules():
        module.training = False  # dropout would blur the places
    with contextlib.ExitStack() as during:
        during.enter_context(torch.no_grad())
        during.enter_context(torch.autocast(call.inputs.device.type, enabled=False))
        hooks = during.enter_context(Hooks())
        for module in (explained, *explained.children()):
            hooks.before(replica.of(module), images.replace)
        for tap in taps:
            hooks.tap(replace(tap, module=replica.of(tap.module)), partial(use, tap))
        with contextlib.suppress(Reached), LocalMode(SAMPLES):
            torch.func.functional_call(replica.model, weights, (first, *arguments), tie_weights=False)


class _Images:
    """Replaces the first images that reach the model."""

    def __init__(self) -> None:
        self._done = False

    def replace(self, x: torch.Tensor) -> torch.Tensor | None:
        if self._done or x.ndim != 4 or len(x) != SAMPLES:
            return None
        self._done = True
        generator = torch.Generator().manual_seed(0)
        image, change = torch.rand(2, *x.shape[1:], generator=generator, dtype=x.dtype).to(x.device)
        return changed_images(image, _CHANGE[x.dtype] * (1 + change / 2))


def _local_weights(model: nn.Module, gain: float, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The replaced parameters and buffers of a model."""
    generator, device = torch.Generator().manual_seed(0), next(model.parameters(), torch.empty(0)).device
    shared: dict[nn.Parameter, torch.Tensor] = {}
    found: dict[str, torch.Tensor] = {}
    for path, module in model.named_modules():  # once each, unlike the names of a shared module's parameters
        for name, weight in module.named_parameters(path, recurse=False):
            if weight not in shared:
                shared[weight] = _local_weight(name, weight, gain, generator).to(device, dtype)
            found[name] = shared[weight]
        for name, buffer in module.named_buffers(path, recurse=False):
            if name.endswith(("running_mean", "running_var")):
                found[name] = torch.full_like(buffer, float(name.endswith("var")), dtype=dtype)
            elif buffer.is_floating_point():
                found[name] = buffer.to(dtype)
    return found


def _local_weight(name: str, weight: torch.Tensor, gain: float, generator: torch.Generator) -> torch.Tensor:
    """Random weights of a layer that preserve the scale, times the gain if the layer may mix tokens."""
    if weight.ndim < 2:  # norms, and biases that keep activation functions in their linear range
        return torch.full(weight.shape, 0.5 if name.endswith("bias") else 1.0)
    noise = torch.randn(weight.shape, generator=generator)
    if noise.ndim < 4:
        return noise.mul(gain / max(1, noise[0].numel()) ** 0.5)
    kept = torch.zeros(noise.shape[2:])
    kept[tuple(size // 2 for size in kept.shape)] = 1
    return (noise * kept).div(noise.shape[1] ** 0.5)


def _repeated(value: Any, batch: int) -> Any:
    """An additional argument for the probe's images: the first sample's, if there is one for each sample."""
    if isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == batch:
        return value[:1].expand(SAMPLES, *value.shape[1:])
    return [value[0]] * SAMPLES if isinstance(value, list) and len(value) == batch else value
