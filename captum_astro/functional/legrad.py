"""LeGrad: the positive gradient of each layer's own class score at its attention map.

Source: Bousselham, Boggust, Chaybouti, Strobelt, Kuehne, "LeGrad: An Explainability Method for Vision Transformers via
Feature Formation Sensitivity", ICCV 2025 (arXiv 2404.03214)::

    map_j = sum over the layers of the mean over heads and queries of (ds_l/dA_l)^+

with ``s_l`` the class score of layer l's tokens.
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import Attention
from captum_astro.functional.head_rows import head_rows


def legrad_map(row: torch.Tensor, attention: Attention, gradient: torch.Tensor) -> torch.Tensor:
    """``r E_h[(ds/dA)^+]``; a key that a query may not attend to gets nothing from it.

    Args:
        row: Weights of the queries, ``(B, q)``.
        attention: The layer.
        gradient: ``ds/dO`` at the heads' outputs, ``(B, H, q, d_v)``.

    Returns:
        ``(B, n)``.
    """
    return head_rows(row, attention, "rise", gradient).mean(1)
