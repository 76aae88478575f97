"""Copies of a model whose layers have forgotten what they learnt."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator

import torch
from torch import nn


def layers(model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """The modules with parameters of their own, grouped into layers: blocks, stems and heads.

    Args:
        model: Any model.

    Returns:
        From the input to the output, in the order of registration: the layer's name, and its modules.

    Example:
        >>> import timm
        >>> [name for name, _ in layers(timm.create_model("vit_tiny_patch16_224", depth=2))]
        ['', 'patch_embed', 'blocks.0', 'blocks.1', 'norm', 'head']
    """
    own = {
        tuple(name.split(".")) if name else (): module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    around = _alike(min(own, default=()), max(own, default=())) if len(own) > 1 else 0  # a wrapper's own path
    found: dict[str, list[nn.Module]] = {}
    for words, module in own.items():
        found.setdefault(".".join(words[:around] + _layer(words[around:])), []).append(module)
    return list(found.items())


def _alike(first: tuple[str, ...], last: tuple[str, ...]) -> int:
    """How many words two paths, and all that are sorted between them, begin with."""
    same = [a == b for a, b in zip(first, last, strict=False)]
    return same.index(False) if False in same else len(same)


def _layer(words: tuple[str, ...]) -> tuple[str, ...]:
    """A module's path up to its last number, or its first word: ``blocks.3.attn.qkv`` is in ``blocks.3``."""
    numbers = [i for i, word in enumerate(words) if word.isdigit()]
    return words[: numbers[-1] + 1] if numbers else words[:1]


def randomised_copies(model: nn.Module, *, cascading: bool, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Copies with randomised layers, from the output to the input.

    A module that has ``reset_parameters`` starts anew; parameters of others are shuffled. The model itself and the
    global random state stay as they are.

    Args:
        model: Any model.
        cascading: Whether the layers behind stay randomised, so that the last copy has forgotten everything; otherwise
            every copy has one layer that is randomised.
        seed: Random seed.

    Yields:
        The layer's name, and a copy in the model's mode and on its device. With ``cascading`` it is one copy that is
        changed further; keep no reference to it.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> [name for name, _ in randomised_copies(model, cascading=True)]
        ['1', '0']
    """
    names = [name for name, _ in layers(model)]
    changed = copy.deepcopy(model)
    for place in reversed(range(len(names))):
        if not cascading:
            changed = copy.deepcopy(model)
        _forget(layers(changed)[place][1], zlib.crc32(f"{seed} {names[place]}".encode()))
        yield names[place], changed


def _forget(modules: list[nn.Module], seed: int) -> None:
    devices = sorted({p.device.index for m in modules for p in m.parameters(recurse=False) if p.is_cuda})
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        for module in modules:
            own = list(module.parameters(recurse=False))
            reset = getattr(module, "reset_parameters", None)
            if callable(reset) and len(own) == len(list(module.parameters())):  # it may reset what is inside as well
                reset()
                continue
            for parameter in own:
                flat = parameter.flatten()
                parameter.copy_(flat[torch.randperm(len(flat), device=flat.device)].reshape(parameter.shape))
