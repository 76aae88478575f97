"""What a model answers to many texts of different lengths."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def answers(model: nn.Module, texts: torch.Tensor, batch_size: int) -> torch.Tensor:
    """The logits of each text, which does not depend on the others.

    Texts of similar length are read together, without the padding that they share; one without tokens is a single
    padding.

    Args:
        model: Maps token ids to logits; in eval mode.
        texts: ``(B, L, n)``, padding 0 at the end.
        batch_size: Texts at a time.

    Returns:
        ``(B, L, classes)``.
    """
    every = texts.flatten(0, 1)
    lengths = (every != 0).sum(1)
    order = lengths.argsort(stable=True)
    parts = [model(every[part, : max(1, int(lengths[part].max()))]) for part in order.split(batch_size)]
    return torch.cat(parts)[order.argsort()].reshape(*texts.shape[:2], -1)
