"""Layers whose weight is computed, as plain layers with that weight."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from captum_astro.layouts.errors import UnsupportedModelError

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # of a merged adapter, relative to its largest output


def settle(module: nn.Module) -> None:
    """Give a private module its weight as a parameter, if it computes it from others.

    This covers parametrisations (`torch.nn.utils.parametrize`), the older hooks of weight and spectral norm, and
    low-rank adapters (LoRA) around a linear layer, which becomes the merged layer. A method can then read the weight
    that acts, and propagate through one product instead of a sum of several.

    Args:
        module: A module of a `Replica`, changed in place.
    """
    parts = vars(module)["_modules"]  # no __getattr__ may answer for it
    if "parametrizations" in parts:
        _fix(module, list(parts["parametrizations"]))
        del module._modules["parametrizations"]
        module.__class__ = type(module).__bases__[0]
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm | SpectralNorm):
            hook(module, None)
            del module._forward_pre_hooks[key]
            _fix(module, [hook.name])
    if is_adapter(module):
        _merge(module)


def is_adapter(module: nn.Module) -> bool:
    """Whether a module adds a low-rank product to a layer, by the names that LoRA libraries use."""
    if isinstance(module, torch.jit.ScriptModule):  # hides its parts
        return False
    return any(name.startswith("lora_") for name in (*module._modules, *module._parameters))


def _fix(module: nn.Module, names: list[str]) -> None:
    for name in names:
        value = getattr(module, name).detach()
        module.__dict__.pop(name, None)
        module._parameters[name] = nn.Parameter(value, requires_grad=False)


def _merge(module: nn.Module) -> None:
    """The linear layer that computes the same; an adapter of anything else stays as it is.

    Raises:
        UnsupportedModelError: If it adapts PyTorch's attention, of which it changes the weights as it runs.
    """
    base = next((part for part in module.modules() if isinstance(part, nn.Linear)), None)
    if isinstance(module._modules.get("base_layer"), nn.MultiheadAttention):
        raise UnsupportedModelError(
            f"An adapter ({type(module).__name__}) changes PyTorch's attention as a whole, so no layer has the weight "
            f"that acts. Merge it: merge_and_unload() in peft."
        )
    if base is None or any(isinstance(part, nn.Embedding | nn.modules.conv._ConvNd) for part in module.modules()):
        return
    like = base.weight
    inputs = torch.cat([like.new_zeros(1, base.in_features), torch.eye(base.in_features).to(like)])
    # two samples of several tokens, because an adapter may treat them differently
    probe = torch.randn(2, 5, base.in_features, generator=torch.Generator().manual_seed(0)).to(like)
    outputs, expected = module.forward(inputs[None])[0], module.forward(probe)
    weight, bias = (outputs[1:] - outputs[0]).T, outputs[0]
    dtypes = [parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()]
    allowed = max(_TOLERANCE.get(dtype, 1e-2) for dtype in dtypes) * float(expected.abs().max())
    if not torch.allclose(F.linear(probe, weight, bias), expected, rtol=0, atol=allowed):
        return
    kept = {name: value for name, value in vars(module).items() if "hooks" in name or name == "training"}
    merged = nn.Linear(base.in_features, len(bias), device="meta")
    module.__class__ = nn.Linear
    module.__dict__ = vars(merged) | kept
    module._parameters["weight"] = nn.Parameter(weight.contiguous(), requires_grad=False)
    module._parameters["bias"] = nn.Parameter(bias, requires_grad=False)
