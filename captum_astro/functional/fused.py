"""Where a row times an attention layer's matrix is computed by a kernel: on NVIDIA GPUs, where Triton is installed."""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import Literal

import torch
from torch.torch_version import TorchVersion

from captum_astro.functional.attention import Attention, Softmax

# its value 0 turns the kernel off
SWITCH = "CAPTUM_ASTRO_KERNELS"
# of wider heads, not even the smallest tiles fit into the shared memory of every card
WIDEST = 256
# the kernel is tested with this version of Triton and later ones
TRITON = "3.8"

Entry = Literal["attention", "flow", "rise", "size", "square"]


def fused_rows(
    row: torch.Tensor, attention: Attention, entry: Entry, gradient: torch.Tensor | None = None
) -> torch.Tensor | None:
    """A row times each head's matrix ``f(A, dA)``, computed by one kernel; None where the kernel cannot run.

    Args:
        row: Weights of the queries, ``(B, q)``, or of each head's, ``(B, H, q)``; several rows have no kernel.
        attention: The layer.
        entry: ``f``: ``"attention"`` is ``A``, ``"flow"`` ``(A dA)^+``, ``"rise"`` ``dA^+``, ``"size"`` ``|dA|`` and
            ``"square"`` ``dA^2``, the last three 0 where attention is forbidden.
        gradient: ``dO`` at the heads' outputs, ``(B, H, q, d_v)``, for entries with ``dA = dO V^T``.

    Returns:
        ``(B, H, n)``, float32; or None.
    """
    part = attention.maps[0]
    if not isinstance(part, Softmax) or not _fits(row, part, attention, gradient):
        return None
    from captum_astro.functional.row_kernel import head_rows

    return head_rows(row, part, entry, attention.value, gradient)


def _fits(row: torch.Tensor, part: Softmax, attention: Attention, gradient: torch.Tensor | None) -> bool:
    """Whether the kernel computes this layer: one softmax on one GPU, not in double precision."""
    by_head = [part.query, part.key, attention.value, *([] if gradient is None else [gradient])]
    tensors = [row, *by_head, *([] if part.bias is None else [part.bias])]
    return (
        part.query.is_cuda
        and os.environ.get(SWITCH) != "0"
        and attention.weights == (1,)
        and all(x.device == part.query.device and x.dtype != torch.float64 for x in tensors)
        and all(x.shape[:2] == part.query.shape[:2] and x.shape[-1] <= WIDEST for x in by_head)
        and _runs(part.query.device)
    )


@cache
def _runs(device: torch.device) -> bool:
    """Whether Triton is there, and compiles for this device."""
    try:
        import triton
    except ImportError as error:
        logging.getLogger(__name__).debug("Rows are computed without a kernel: %s", error)
        return False
    tested = TorchVersion(triton.__version__) >= TRITON
    able = tested and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
    logging.getLogger(__name__).debug("Triton %s on %s: %s", triton.__version__, device, "kernel" if able else "none")
    return able
