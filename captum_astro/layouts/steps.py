"""Where a tensor can be read in a forward pass, and the linear steps that a layout lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class Tap:
    """A tensor of the forward pass: an argument of ``module``, usually the first, or its output.

    Attributes:
        module: The module.
        at: Which of the two.
        channels: The position of the channel dimension in a feature map ``(B, H, W, C)`` or ``(B, C, H, W)``; tokens
            ``(B, n, C)`` are not affected.
        arrange: Brings a tensor of any other form, or in another order, to tokens ``(B, n, C)``.
        number: Which of the tensors that it receives.
    """

    module: nn.Module
    at: Literal["input", "output"] = "input"
    channels: Literal["last", "first"] = "last"
    arrange: Callable[[torch.Tensor], torch.Tensor] | None = None
    number: int = 0

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """The tensor as tokens ``(B, n, C)``, row by row for a feature map."""
        if self.arrange is not None:
            return self.arrange(x)
        if x.ndim != 4:
            return x
        return x.flatten(1, 2) if self.channels == "last" else x.flatten(2).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Linear:
    """The step ``y = x weight^T + bias``, with ``weight`` ``(out, in)``.

    The bias is ``(out,)``, or ``(1, n, out)`` if tokens have different ones.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Scale:
    """The step ``y = factor * x``, with ``factor`` a number or ``(d,)``: LayerScale."""

    factor: torch.Tensor | float


@dataclass(frozen=True, eq=False)
class Norm:
    """A layer norm or RMS norm inside a branch, linear once its statistics are known.

    Attributes:
        module: The norm. Its statistics are read from its input in the forward pass.
        per_head: The input is ``(B, heads, n, d_head)`` and each head is normalised separately. In a `Merging`, no step
            before it may mix heads.
        after_windows: It normalises the tokens after the windows have been merged.
        channels: The position of the channel dimension in its input, as in `Tap`.
    """

    module: nn.Module
    per_head: bool = False
    after_windows: bool = False
    channels: Literal["last", "first"] = "last"


@dataclass(frozen=True, eq=False)
class Measured:
    """The effect of a `Modulated` layer on one batch.

    Attributes:
        factors: Each sample's factors of the input channels, ``(B, d_in)``.
        scale: The factor of each token's output, ``(B, n)``.
        shift: The offset of all its channels, ``(B, n)``, or None.
    """

    factors: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Modulated:
    """The step ``y_i = scale_i ((x_i * factors) weight^T + bias) + shift_i``, whose factors depend on the sample.

    Attributes:
        module: The linear layer.
        measure: Its effect on a batch, from the input ``(B, n, d_in)``.
    """

    module: nn.Linear
    measure: Callable[[torch.Tensor], Measured]


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation of the heads' outputs, the first step: each channel of a query times a factor of its own.

    As the statistics of a norm, the factors are read in the forward pass and held constant.

    Attributes:
        module: The activation, which is 0 at 0.
        channels: The position of the channel dimension in its input, as in `Tap`.
        first: How many of the first channels of its input are the heads' outputs; None for all.
        scale: With ``shift``, a batch norm between the heads and its input, ``(d,)``; None for none.
        shift: What that norm adds.
        after_windows: As in `Norm`.
    """

    module: nn.Module
    channels: Literal["last", "first"] = "last"
    first: int | None = None
    scale: torch.Tensor | None = None
    shift: torch.Tensor | None = None
    after_windows: bool = False


Step = Linear | Scale | Norm | Modulated | Activation
