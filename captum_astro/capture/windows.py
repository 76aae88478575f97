"""Attention that a model computes on other dimensions than (B, heads, n, d): more for windows, fewer for heads."""

from __future__ import annotations

from dataclasses import replace

import torch

from captum_astro.functional.attention import AttentionMap, Given, Softmax
from captum_astro.functional.operations import Recorded
from captum_astro.layouts.errors import UnsupportedModelError


def as_samples(x: torch.Tensor, windows: int) -> torch.Tensor:
    """A tensor with windows in dimension 1 or 2 after the batch, as ``(B * windows, H, n, d)``, image by image."""
    return x.movedim(windows, 1).flatten(0, 1)


def recorded_as_samples(recorded: Recorded, windows: int, name: str) -> Recorded:
    """The same of a call of an attention function.

    Args:
        recorded: The call.
        windows: The dimension that counts windows.
        name: Its branch, for the error.

    Raises:
        UnsupportedModelError: If it has a mask, a bias or a constant.
    """
    found = recorded.map
    if isinstance(found, Given):
        folded: AttentionMap = Given(as_samples(found.attention, windows))
    elif isinstance(found, Softmax) and found.bias is None and recorded.constant is None:
        query, key = (as_samples(x, windows) for x in (found.query, found.key))
        folded = replace(found, query=query, key=key)
    else:
        raise UnsupportedModelError(f"{name} has a mask or a bias for windows in a dimension of their own.")
    return Recorded(folded, as_samples(recorded.value, windows))


def recorded_with_heads(recorded: Recorded, heads: int) -> Recorded:
    """A call of an attention function on ``(B * heads, n, d)``, with the heads in a dimension of their own.

    Args:
        recorded: The call.
        heads: Their number.
    """

    def apart(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, heads, *x.shape[1:])

    found = recorded.map
    if isinstance(found, Softmax):
        bias = found.bias
        if bias is not None:
            bias = apart(bias) if bias.ndim == 3 and len(bias) == len(found.query) else bias
        map_: AttentionMap = replace(found, query=apart(found.query), key=apart(found.key), bias=bias)
    else:
        assert isinstance(found, Given)
        map_ = Given(apart(found.attention))
    return Recorded(map_, apart(recorded.value))
