"""The vocabulary of a layout: taps, steps, branches and stages.

A transformer is read as a chain of *stages*. Most are one residual add: the stage takes the residual stream
``E``, computes one or more *branches* from it, and adds them. A branch is attention or feed-forward. All
that lies between the heads' outputs and the residual stream (projection, LayerScale, a norm) is listed
as *steps*, so that the vector which each token really adds can be computed exactly. Other stages change the
resolution: each new token is a linear map of a few old ones, which is described by the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap

# gives the token map for a grid of patch tokens, as it depends on the size of the image
Rearrange = Callable[[Grid], TokenMap]


@dataclass(frozen=True, eq=False)
class Tap:
    """A tensor of the forward pass: the first argument of ``module``, or its output.

    Attributes:
        module: The module.
        at: Which of the two.
        channels: Where the channels of a feature map ``(B, H, W, C)`` or ``(B, C, H, W)`` stand; tokens ``(B, n, C)``
            are not affected.
    """

    module: nn.Module
    at: Literal["input", "output"] = "input"
    channels: Literal["last", "first"] = "last"

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """The tensor as tokens ``(B, n, C)``, row by row where it is a feature map."""
        if x.ndim != 4:
            return x
        return x.flatten(1, 2) if self.channels == "last" else x.flatten(2).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Linear:
    """The step ``y = x weight^T + bias``, with ``weight`` ``(out, in)``."""

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
        per_head: The input is ``(B, heads, n, d_head)`` and each head is normalised on its own.
        after_windows: It normalises the tokens after the windows were put back in their places.
    """

    module: nn.Module
    per_head: bool = False
    after_windows: bool = False


@dataclass(frozen=True, eq=False)
class Measured:
    """What a `Modulated` layer did to one batch.

    Attributes:
        factors: Each sample's factors of the input channels, ``(B, d_in)``.
        scale: What each token's output was multiplied by, ``(B, n)``.
        shift: What was added to all its channels, ``(B, n)``, or None.
    """

    factors: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Modulated:
    """The step ``y_i = scale_i ((x_i * factors) weight^T + bias) + shift_i``, whose factors depend on the sample.

    Attributes:
        module: The linear layer.
        measure: What it does to a batch, from its input ``(B, n, d_in)``.
    """

    module: nn.Linear
    measure: Callable[[torch.Tensor], Measured]


Step = Linear | Scale | Norm | Modulated


@dataclass(frozen=True, eq=False)
class AttentionBranch:
    """One attention layer.

    Attributes:
        name: Its dotted path in the model.
        module: The module in whose ``forward`` the attention is computed.
        steps: From the concatenated heads' outputs to what is added to the residual stream.
        value_weight: Gives the weight ``(heads, d_value, d)`` of the value projection, without the bias.
        reads: The tokens that the value projection reads: by default what ``module`` is given.
        entering: The tokens of the residual stream as they enter the branch, normalised where it begins with a norm and
            before any windows. With it, what the value projection reads is compared with them in every pass.
        modulated_values: The value projection, where it is modulated.
        weights: One factor for each softmax that is summed into the attention: ``(1,)``, or ``(1, -lambda)``
            in differential attention. A callable is asked at each pass, as lambda is learnt.
        outputs: Which tokens its queries are, as windows; None for all tokens in order.
        sources: Which tokens its keys are; None for all tokens in order.
    """

    name: str
    module: nn.Module
    steps: tuple[Step, ...]
    value_weight: Callable[[], torch.Tensor]
    weights: Callable[[], tuple[float, ...]] = lambda: (1.0,)
    reads: Tap | None = None
    entering: Tap | None = None
    modulated_values: Modulated | None = None
    outputs: Rearrange | None = None
    sources: Rearrange | None = None


@dataclass(frozen=True, eq=False)
class FeedForwardBranch:
    """One feed-forward layer: ``steps`` lead from the tapped tensor to what is added."""

    name: str
    output: Tap
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class Merging:
    """A change of resolution: each new token is a linear map of a few old ones.

    Attributes:
        name: Its dotted path in the model.
        tokens: Which old tokens each new one is made of, with the new grid.
        steps: From the concatenated old tokens to the new one.
    """

    name: str
    tokens: Rearrange
    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Stage:
    """One residual add: ``E_next = E + sum of the branches``, or a norm of that sum; or a change of resolution.

    Attributes:
        block: The index of the block it belongs to, from 0: what ``layers=`` counts.
        stream: Where the residual stream ``E`` ``(B, n, d)`` that enters it can be read.
        branches: What is added.
        summed: Where the sum can be read, if a norm stands between it and the next stage's stream.
        merging: How ``E`` changes its resolution; None where it goes on as it is.
    """

    block: int
    stream: Tap
    branches: tuple[AttentionBranch | FeedForwardBranch, ...] = ()
    summed: Tap | None = None
    merging: Merging | None = None


@dataclass(frozen=True, eq=False)
class Pooling:
    """A read-out by attention: a pooling head, with no residual add.

    Attributes:
        branch: Its attention, whose keys are the pooled tokens of the final stream.
        rows: Gives the weight of each query ``(m,)`` of ``m`` in the pooled vector.
        pooled: Where the head's attention, projected, can be read ``(B, m, d)``.
    """

    branch: AttentionBranch
    rows: Callable[[int], torch.Tensor]
    pooled: Tap
