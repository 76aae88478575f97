"""The z+ rule of linear layers and convolutions: an autograd function whose backward pass propagates relevance.

Source: Montavon et al., "Explaining NonLinear Classification Decisions with Deep Taylor Decomposition", Pattern
Recognition 2017. The method may be covered by patents; see the documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_TINY = 1e-12
Product = Callable[[Tensor, Tensor], Tensor]


class Workspace:
    """Memory for one tensor at a time: on a CPU, fresh pages for every layer cost more than what is written to them."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def absolute(self, x: Tensor) -> Tensor:
        """``abs(x)``, until the next call."""
        held = self._held
        if held is None or held.dtype != x.dtype or held.device != x.device or held.numel() < x.numel():
            held = self._held = x.new_empty(x.numel())
        return torch.abs(x, out=held[: x.numel()].view(x.shape))


class LinearZPlus(torch.autograd.Function):
    """A linear map or convolution: ``R_i = sum_j (x_i w_ij)^+ / sum_i' (x_i' w_i'j)^+ R_j``. Biases get no share.

    Because ``a^+ = (a + abs(a)) / 2``, products with W and abs(W) replace the four of positive and negative parts, and
    one of them is the forward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        product: Product,
        back: Product,
        workspace: Workspace | None = None,
    ) -> Tensor:
        """``product(x, W)`` is the operation without its bias, ``back(R, W)`` its transpose."""
        output = product(x, weight)
        ctx.save_for_backward(x, weight, output)
        ctx.product, ctx.back, ctx.workspace = product, back, workspace or Workspace()
        if bias is None:
            return output.clone()
        return output + bias.reshape(-1, *[1] * (weight.ndim - 2))

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        """Relevance of ``x``."""
        x, weight, output = ctx.saved_tensors
        size, strength = x.abs(), ctx.workspace.absolute(weight)
        absolute = ctx.product(size, strength)
        total = output + absolute
        # where every contribution is negative, the sum is rounding error; published code passes on nothing there
        nothing = total <= absolute.mul_(8 * torch.finfo(total.dtype).eps)
        share = (relevance[0] / total.clamp_(min=_TINY)).masked_fill_(nothing, 0)
        back = x * ctx.back(share, weight)
        return back.addcmul_(size, ctx.back(share, strength)), None, None, None, None, None
