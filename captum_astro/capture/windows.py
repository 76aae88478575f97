"""Attention in other forms: on five dimensions, one of which counts windows, or without one for heads."""

from __future__ import annotations

from dataclasses import replace

import torch

from captum_astro.functional.attention import AttentionMap, Given, Softmax
from captum_astro.functional.operations import Recorded
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import AttentionBranch


def as_samples(x: torch.Tensor, windows: int) -> torch.Tensor:
    """A tensor with windows in dimension 1 or 2 after the batch, as ``(B * windows, H, n, d)``, image by image."""
    return x.movedim(windows, 1).flatten(0, 1)


def as_heads(x: torch.Tensor, branch: AttentionBranch) -> torch.Tensor | None:
    """Heads' outputs, values or maps of a branch as ``(B, H, n, d)``; None if they have another form.

    Args:
        x: The tensor.
        branch: The branch.
    """
    dimensions = 4 if branch.windows is None else 5
    if branch.heads is not None and x.ndim == dimensions - 1:
        x = x.reshape(-1, branch.heads, *x.shape[1:])
    if x.ndim != dimensions:
        return None
    return x if branch.windows is None else as_samples(x, branch.windows)


def recorded_as_heads(recorded: Recorded, branch: AttentionBranch) -> Recorded | None:
    """The same of a call of an attention function.

    Args:
        recorded: The call.
        branch: The branch that it is part of.

    Raises:
        UnsupportedModelError: If it has windows, and a mask, a bias or a constant.
    """
    found, value = recorded.map, as_heads(recorded.value, branch)
    if value is None:
        return None
    if recorded.value.ndim == 4 and branch.windows is None:
        return recorded
    if isinstance(found, Given):
        folded = as_heads(found.attention, branch)
        assert folded is not None
        logits = None if found.logits is None else as_heads(found.logits, branch)
        return recorded._replace(map=Given(folded, logits), value=value)
    bias = found.bias if isinstance(found, Softmax) else None
    if isinstance(found, Softmax) and recorded.constant is None and (bias is None or branch.windows is None):
        query, key = (as_heads(x, branch) for x in (found.query, found.key))
        assert query is not None
        assert key is not None
        if bias is not None and bias.ndim == 3 and len(bias) == len(found.query):
            bias = as_heads(bias, branch)
        whole: AttentionMap = replace(found, query=query, key=key, bias=bias)
        return recorded._replace(map=whole, value=value)
    raise UnsupportedModelError(f"{branch.name} has a mask or a bias for windows in a dimension of their own.")
