"""The precision in which the z+ methods compute: their divisions by small sums amplify rounding."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

Precision = Literal["float64", "float32"]


def least_dtype(precision: Precision, model: nn.Module) -> torch.dtype:
    """The least precision in which a model is run: float32 on a device without float64.

    Raises:
        ValueError: If ``precision`` is neither ``"float64"`` nor ``"float32"``.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be 'float64' or 'float32', which is faster, not {precision!r}.")
    on_mps = any(parameter.device.type == "mps" for parameter in model.parameters())
    return torch.float64 if precision == "float64" and not on_mps else torch.float32
