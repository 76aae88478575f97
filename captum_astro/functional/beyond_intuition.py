"""Beyond Intuition: attention carried through the layers, times the gradient of the last map along a path.

Source: Chen, Li, Yu, Dou, Xiong, "Beyond Intuition: Rethinking Token Attributions inside Transformers", TMLR 2023, as
its public code computes it::

    perception:  P = U_L ... U_1,   U = I + E_h[A_h] diag(|E'| / |E|)        by tokens
                                    U = I + sum_h I_h A_h                    by heads
    feedback:    F = E_h[(mean over s of dy/dA_L,h at the image times s)^+]
    map_j = sum_q r_q F_qj P_qj

with E' what each token adds to one that attends to it fully, and I_h InFlow's importance of a head.
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import widen


def length_ratios(stream: torch.Tensor, value: torch.Tensor, output_map: torch.Tensor) -> torch.Tensor:
    """``|E'| / |E|`` of each token, with ``E' = sum_h v_h M_h``.

    Args:
        stream: ``E``, ``(B, n, d)``.
        value: ``(B, H, n, d_v)``.
        output_map: ``M``, from each head's output to the residual stream, ``(H, d_v, d)``, or ``(B, H, d_v, d)``.

    Returns:
        ``(B, n)``.
    """
    matrix = output_map.flatten(-3, -2)
    added = widen(value).transpose(1, 2).flatten(2) @ matrix
    ratios: torch.Tensor = added.norm(dim=-1) / widen(stream).norm(dim=-1)
    return ratios


def feedback(slopes: list[torch.Tensor]) -> torch.Tensor:
    """``E_h[(mean of the slopes)^+]``: ``(B, m, n)`` from the gradients at m rows of a map, each ``(B, H, m, n)``."""
    return torch.stack(slopes).mean(0).clamp_(min=0).mean(1)
