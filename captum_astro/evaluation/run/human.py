"""Preparation of human attention maps for the comparison."""

from __future__ import annotations

import torch

from captum_astro.data.human import prepare_heatmap


def prepared(human: torch.Tensor, size: int, name: str) -> torch.Tensor:
    """A human attention map, ``(h, w)``, prepared for the comparison, ``(size, size)``.

    Raises:
        ValueError: If it is not finite; the message has the sample's name.
    """
    if not human.isfinite().all():
        raise ValueError(f"The human map of {name} holds NaN or infinite values.")
    return prepare_heatmap(human, size)
