"""A compiled model for forward passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from captum_astro.evaluation.run.failures import is_of_the_machine


def compiled(model: nn.Module, side: int) -> Any:
    """A model as ``torch.compile`` makes it, tried on one image; the model itself stays as it is.

    Args:
        model: In eval mode.
        side: Of its square images, in pixels.

    Returns:
        Maps images to what the model returns for them, up to the last digits.

    Raises:
        ValueError: If it cannot be compiled here.
    """
    like = next(model.parameters())
    made = torch.compile(model)
    try:
        with torch.inference_mode():
            made(torch.zeros(1, 3, side, side, dtype=like.dtype, device=like.device))
    except Exception as error:
        if is_of_the_machine(error):
            raise
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{type(model).__name__} cannot be compiled here ({why}). Leave out --compile.") from error
    return made
