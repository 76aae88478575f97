"""The relevance of position embeddings, on the pixels of their patches.

Source: Bakish, Zimerman, Chefer, Wolf, "Revisiting LRP: Positional Attribution as the Missing Ingredient for
Transformer Explainability", NeurIPS 2025 (arXiv 2506.02138). LRP methods may be covered by patents.
"""

from __future__ import annotations

import torch


def spread_evenly(relevance: torch.Tensor, extent: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """Share the relevance of each cell of a grid equally among its pixels.

    Args:
        relevance: ``(B, h, w)``.
        extent: Height and width in pixels that the grid covers.
        size: Height and width of the image. Pixels outside the extent belong to no cell.

    Returns:
        ``(B, 1, H, W)``, with the sum of each image kept, if every cell has a pixel.

    Example:
        >>> spread_evenly(torch.tensor([[[4.0, 6.0]]]), (2, 3), (2, 3))
        tensor([[[[1., 1., 3.],
                  [1., 1., 3.]]]])
    """
    sides = zip(relevance.shape[1:], extent, size, strict=True)
    height, width = (_shares(*side, relevance) for side in sides)
    return torch.einsum("bhw,hy,wx->byx", relevance, height, width)[:, None]


def _shares(cells: int, extent: int, size: int, like: torch.Tensor) -> torch.Tensor:
    """The share of each pixel in each cell along one dimension, ``(cells, size)``."""
    pixels = torch.arange(min(extent, size), device=like.device)
    inside = torch.zeros(cells, size, dtype=like.dtype, device=like.device)
    inside[pixels * cells // extent, pixels] = 1
    return inside / inside.sum(1, keepdim=True).clamp(min=1)
