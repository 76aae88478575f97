"""The building blocks of a layout: branches and stages.

A transformer is read as a chain of *stages*. Most are one residual add: the stage takes the residual stream ``E``,
computes one or more *branches* from it, and adds them. A branch is attention or feed-forward. Everything between the
heads' outputs and the residual stream (projection, LayerScale, a norm) is listed as *steps*, so that the vector that
each token actually adds can be computed exactly. Other stages change the resolution: each new token is a linear map of
a few old ones, which is described by the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap
from captum_astro.layouts.steps import Modulated, Step, Tap

# returns the token map for a grid of patch tokens, because it depends on the image size
Rearrange = Callable[[Grid], TokenMap]


@dataclass(frozen=True, eq=False)
class AttentionBranch:
    """One attention layer.

    Attributes:
        name: Its dotted path in the model.
        module: The module in whose ``forward`` the attention is computed.
        steps: From the concatenated heads' outputs to what is added to the residual stream.
        value_weight: Returns the weight ``(heads, d_value, d)`` of the value projection, without the bias; None if
            the values are no linear map of its tokens, as after an activation.
        reads: The input tokens of the value projection: by default the input of ``module``.
        entering: The tokens of the residual stream as they enter the branch, normalised if it begins with a norm and
            before any windows. With it, the input of the value projection is compared with them in every pass.
        modulated_values: The value projection, if it is modulated.
        value_norm: A norm without weights of each head's values, whose input is ``(B, n, heads, d_value)``; the heads
            of grouped queries share theirs.
        weights: One factor for each softmax that is summed into the attention: ``(1,)``, or ``(1, -lambda)`` in
            differential attention. A callable is evaluated at each pass, because lambda is learnt.
        outputs: Which tokens are its queries, as for windows; None for all tokens in order.
        sources: Which tokens are its keys; None for all tokens in order.
        reduced: How the tokens that enter are reduced to fewer keys, instead of ``sources``; ``reads`` then taps those.
        reduced_values: The same, if values are reduced after their projection; it enters and leaves with them.
        mixed: Where its map can be read, if the model changes it between the softmax and the product with the values.
        approximate: As in `FeedForwardBranch`: what its maps do not carry exactly, and the rule.
        output: Where what it adds can be read, if the steps do not lead exactly there, as past an activation. The
            residual add is then compared with it, and the steps are a rule for the vectors, named by ``approximate``.
        heads: The number of heads, if the model computes them without a dimension of their own: in the batch dimension,
            one head after the other for each sample.
        calls: How many calls compute it, each of them some of its heads.
        windows: The dimension that counts windows, 1 or 2, if attention is computed on five dimensions; the tokens that
            are read are then whole images, in the order of the stream.
        overlapping: Its windows overlap, and what they add to a token is summed before the projection.
        gate: Where the logits of a gate can be read, ``(B, queries, heads * d_value)``: their sigmoid multiplies the
            heads' outputs, channel by channel, before the steps.
    """

    name: str
    module: nn.Module
    steps: tuple[Step, ...]
    value_weight: Callable[[], torch.Tensor] | None
    weights: Callable[[], tuple[float, ...]] = lambda: (1.0,)
    reads: Tap | None = None
    entering: Tap | None = None
    modulated_values: Modulated | None = None
    value_norm: nn.Module | None = None
    outputs: Rearrange | None = None
    sources: Rearrange | None = None
    reduced: Merging | None = None
    reduced_values: Merging | None = None
    heads: int | None = None
    calls: int = 1
    windows: Literal[1, 2] | None = None
    overlapping: bool = False
    gate: Tap | None = None
    mixed: Tap | None = None
    approximate: str | None = None
    output: Tap | None = None


@dataclass(frozen=True, eq=False)
class FeedForwardBranch:
    """One feed-forward layer: ``steps`` lead from the tapped tensor to what is added.

    What it adds to a token is attributed to that token, or to those of which it is a linear map.

    Attributes:
        name: Its dotted path in the model.
        output: Where its output can be read.
        steps: From there to what is added.
        outputs: Which tokens it reads and changes; None for all tokens in order.
        sources: The tokens of which what it adds is a linear map, as of a convolution; None for the token itself.
        approximate: Why that is an approximation, and the rule, for users: if the layer mixes tokens.
    """

    name: str
    output: Tap
    steps: tuple[Step, ...] = ()
    outputs: Rearrange | None = None
    sources: Merging | None = None
    approximate: str | None = None


@dataclass(frozen=True, eq=False)
class Merging:
    """A change of resolution: each new token is a linear map of a few old ones.

    Attributes:
        name: Its dotted path in the model.
        tokens: Which old tokens each new one consists of, with the new grid.
        steps: From the concatenated old tokens to the new one.
        entering: Where the old tokens can be read as they are merged, if they are normalised one by one before.
        merged: Where the new tokens can be read, for the keys of an attention; otherwise they are the next stream.
        maximum: The new token is the maximum of the old ones, channel by channel, and there are no steps.
        averaged: With ``maximum``: the average of the old tokens stands behind it, as further channels.
        replaced: Nothing is kept of the old tokens: the new ones, which lie in their places, are the branches alone.
        joined: Tokens ``(1, m, d)`` that come first from here on; they are made of none of the old ones.
        shared: No linear map leads to the new token, as through a convolutional block, and there are no steps. The old
            ones get equal shares of it, and nothing can be compared; ``approximate`` names it.
        approximate: As in `FeedForwardBranch`: why this is an approximation, and the rule.
    """

    name: str
    tokens: Rearrange
    steps: tuple[Step, ...] = ()
    entering: Tap | None = None
    merged: Tap | None = None
    maximum: bool = False
    averaged: bool = False
    replaced: bool = False
    joined: torch.Tensor | None = None
    shared: bool = False
    approximate: str | None = None


@dataclass(frozen=True, eq=False)
class Stage:
    """One residual add: ``E_next = E + sum of the branches``, or a norm of that sum; or a change of resolution.

    With both, the branches are added to the merged tokens: attention has its queries on the new grid and its keys on
    the old one.

    Attributes:
        block: The index of the block it belongs to, from 0: the number that ``layers=`` refers to.
        stream: Where the residual stream ``E`` ``(B, n, d)`` that enters it can be read.
        branches: What is added.
        summed: Where the sum can be read, if there is a norm between it and the next stage's stream.
        merging: How the resolution of ``E`` changes; None if it does not.
        leading: Only the first tokens of ``E`` can be read there; the others are those of the stage before.
        rest: Where those others can be read instead, if the stage before changes them.
    """

    block: int
    stream: Tap
    branches: tuple[AttentionBranch | FeedForwardBranch, ...] = ()
    summed: Tap | None = None
    merging: Merging | None = None
    leading: bool = False
    rest: Tap | None = None


@dataclass(frozen=True, eq=False)
class Pooling:
    """A read-out by attention: a pooling head, without a residual add.

    Attributes:
        branch: Its attention, whose keys are the pooled tokens of the final stream.
        rows: Returns the weight of each query ``(m,)`` in the pooled vector, given their number ``m``.
        pooled: Where the head's projected attention can be read, ``(B, m, d)``.
    """

    branch: AttentionBranch
    rows: Callable[[int], torch.Tensor]
    pooled: Tap
