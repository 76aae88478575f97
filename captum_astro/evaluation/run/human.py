"""Human maps as they are compared with."""

from __future__ import annotations

import torch

from captum_astro.data.human import prepare_heatmap


def prepared(human: torch.Tensor, size: int, name: str) -> torch.Tensor:
    """A map of where people looked, ``(h, w)``, as it is compared, ``(size, size)``.

    Raises:
        ValueError: If it is not finite; it has the sample's name.
    """
    if not human.isfinite().all():
        raise ValueError(f"The human map of {name} holds NaN or infinite values.")
    return prepare_heatmap(human, size)
