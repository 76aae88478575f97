"""Norms, as functions, whose standard deviation is a constant: the LN rule."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from captum_astro.functional import gradient_rules as rules

_GIVEN = {
    F.layer_norm: ("normalized_shape", "weight", "bias", "eps"),
    F.rms_norm: ("normalized_shape", "weight", "eps"),
    F.group_norm: ("num_groups", "weight", "bias", "eps"),
}
_GIVEN |= {torch.layer_norm: _GIVEN[F.layer_norm], torch.group_norm: _GIVEN[F.group_norm]}


def frozen(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A norm with its standard deviation held constant; also a division by a vector's length.

    Args:
        func: ``F.layer_norm``, ``F.rms_norm``, ``F.group_norm`` or ``F.normalize``.
        x: Its input.
        args: Its other arguments.
        kwargs: Its keyword arguments.
    """
    if func is F.normalize:
        return x * _inverse_length(x.detach(), *args, **kwargs)
    given = dict(zip(_GIVEN[func], args, strict=False)) | kwargs
    weight, bias = given.get("weight"), given.get("bias")
    grouped = "num_groups" in given
    flat = x.reshape(len(x), given["num_groups"], -1) if grouped else x.flatten(-len(given["normalized_shape"]))
    eps = given.get("eps", None if func is F.rms_norm else 1e-5)
    centred = func is not F.rms_norm
    if not grouped:
        weight, bias = (None if p is None else p.flatten() for p in (weight, bias))
        return rules.frozen_norm(flat, centred, eps, weight, bias).reshape(x.shape)
    y = rules.frozen_norm(flat, centred, eps, None, None).reshape(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _inverse_length(
    x: torch.Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> torch.Tensor:
    """``1 / length``, with the arguments of ``F.normalize``."""
    length: torch.Tensor = x.norm(p, dim, keepdim=True)
    return 1 / length.clamp_min(eps)
