"""Immutable records of each stage of a pass, in the form that the methods' maths expects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from captum_astro.capture.affine import AffineMap, Statistics, compose
from captum_astro.capture.merging_record import MergingRecord
from captum_astro.functional.attention import Attention, widen
from captum_astro.functional.token_map import Grid, TokenMap
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Activation, Measured, Norm
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@dataclass(frozen=True, eq=False)
class AttentionRecord:
    """One attention layer of one pass. ``B`` counts samples: with windows, every window of every image is a sample.

    Attributes:
        branch: Its description.
        block: The index of its block; -1 for a pooling head.
        residual: The residual stream that it reads, ``(images, tokens, d)``.
        attention: Its maps and values.
        map_outputs: The output of each map, ``(B, H, q, d_v)``.
        map_gradients: The gradient of the explained output there, for each requested map; empty without gradients.
        statistics: The statistics of the branch's steps that have some, in order: ``1 / sigma`` of a norm, the effect
            of a modulated layer, the factors of an activation.
        read: A few of the input tokens of the value projection, ``(B, 3, d)``, those of `spots`.
        entered: The same tokens as they entered the branch; None if the layout does not say where to read them.
        values: The effect of a modulated value projection.
        value_scale: ``1 / sigma`` of a norm of the values, ``(B, heads, n)``; the heads of a group have the same.
        outputs: Which tokens are its queries; None for all tokens in order.
        sources: Which tokens are its keys; None for all tokens in order.
        reduced: How tokens, or their values, were reduced to its keys; None if they were not.
        merging: The change of resolution after which it is added, so that its queries are on the new grid.
        prefix: The number of tokens before the patch tokens in ``residual``.
        output: What it adds to each token, ``(images, tokens, d)``, if the steps do not lead exactly there.
        gate: The factors of each query's output, ``(B, heads, q, d_v)``; None without a gate.
    """

    branch: AttentionBranch
    block: int
    residual: torch.Tensor
    attention: Attention
    map_outputs: tuple[torch.Tensor, ...]
    map_gradients: tuple[torch.Tensor, ...]
    statistics: Statistics = ()
    read: torch.Tensor | None = None
    entered: torch.Tensor | None = None
    values: Measured | None = None
    value_scale: torch.Tensor | None = None
    outputs: TokenMap | None = None
    sources: TokenMap | None = None
    reduced: MergingRecord | None = None
    merging: MergingRecord | None = None
    prefix: int = 0
    output: torch.Tensor | None = None
    gate: torch.Tensor | None = None

    @property
    def gradient(self) -> torch.Tensor:
        """The gradient of the explained output at the heads' outputs, ``(B, H, q, d_v)``, in a pass with gradients."""
        return self.map_gradients[0]

    @property
    def stream(self) -> torch.Tensor:
        """``E`` of its keys, ``(B, n, d)``; 0 for padding, the mean of the tokens that were reduced to one key.

        Where the resolution changes, it is what they would give to a merged token, of the width of the new stream.
        """
        return self._of_keys(self.residual if self.merging is None else self.merging.given())

    def _of_keys(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens if self.sources is None else self.sources.gather(tokens)

    @property
    def present(self) -> torch.Tensor | None:
        """Which keys are tokens, not padding: ``(groups, n)`` bool; None if all are."""
        return None if self.sources is None or not self.sources.padded else self.sources.present

    def keys(self, by_length: bool) -> TokenMap | None:
        """As `sources`; tokens reduced to one key get shares by the lengths of their contributions, if requested."""
        return self.sources if self.reduced is None else self.reduced.ways(by_length)

    @property
    def over_all(self) -> bool:
        """Whether it goes from all tokens to all: neither in windows, nor from reduced tokens."""
        return self.outputs is None and self.sources is None and self.reduced is None

    @property
    def equal_queries(self) -> torch.Tensor:
        """Equal weights of its queries, ``(B, q)``, that sum to 1 over those of an image; padding has none."""
        images = len(self.residual)
        if self.outputs is None:
            samples, queries = len(self.attention.value), self.attention.queries
            weights = widen(self.attention.value).new_ones(samples, queries)
        else:
            weights = self.outputs.gather(widen(self.residual).new_ones(images, self.outputs.tokens))
        return weights * (images / weights.sum())

    @property
    def projected(self) -> torch.Tensor:
        """The values as they leave their projection, ``(B, H, tokens, d_v)``."""
        if self.branch.reduced_values is None or self.reduced is None:
            return self.attention.value
        values: torch.Tensor = self.reduced.residual.unflatten(-1, (self.attention.value.shape[1], -1))
        return values.transpose(1, 2)

    @property
    def patches(self) -> torch.Tensor:
        """Which keys are patch tokens, ``(groups, n)`` bool."""
        if self.sources is not None:
            return self.sources.index.amax(-1) >= self.prefix
        return (torch.arange(self.residual.shape[1], device=self.residual.device) >= self.prefix)[None]

    @cached_property
    def map_out(self) -> AffineMap:
        """From the concatenated heads' outputs to what is added to the residual stream."""
        return compose(self.branch.steps, self.statistics, self.attention.value)

    def per_head(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """A matrix ``(heads * d_v, d)`` as ``(heads, d_v, d)``, with or without a batch dimension."""
        heads, width = self.attention.value.shape[1], self.attention.value.shape[3]
        if matrix is None:
            matrix = torch.eye(heads * width, device=self.residual.device, dtype=widen(self.residual).dtype)
        return matrix.reshape(*matrix.shape[:-2], heads, width, -1)

    def value_weight(self) -> torch.Tensor:
        """The value projection's weight, split by the heads of the maps, ``(H, d_v, d)``."""
        if self.branch.value_weight is None:
            raise UnsupportedModelError(
                f"The values of {self.branch.name} are no linear map of its tokens themselves. Leave out "
                f"include_norm=False."
            )
        weight = widen(self.branch.value_weight().detach())
        return weight.reshape(self.attention.value.shape[1], self.attention.value.shape[3], -1)

    def gates(self, include_norm: bool) -> torch.Tensor | None:
        """By what each query's output is multiplied, channel by channel: a gate, or an activation's factors.

        Args:
            include_norm: Include the activation, as the model does.

        Returns:
            ``(B, H, q, d_v)``, or None for 1.
        """
        factors = self.map_out.factors if include_norm else None
        if factors is None:
            return self.gate
        found: torch.Tensor = factors.unflatten(2, (self.attention.value.shape[1], -1)).transpose(1, 2)
        return found if self.gate is None else found * self.gate

    def transformed(self, include_norm: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Values, output map and query scale that yield the vector each token adds.

        Before the output map, each query's output is multiplied by `gates`.

        Args:
            include_norm: Include the norms and biases, as the model does; otherwise ``E W_V W_H``, with LayerScale.

        Returns:
            Values ``(B, H, n, d_v)``, output map ``(H, d_v, d)`` or ``(B, H, d_v, d)``, query scale ``(B, 1 or H, q)``
            or None.
        """
        if include_norm:
            out = self.map_out
            return self.attention.value, self.per_head(out.matrix), out.query_scale
        steps = tuple(step for step in self.branch.steps if not isinstance(step, Norm | Activation))
        stream = widen(self._of_keys(self.residual))
        if self.values is not None:
            stream = stream * self.values.factors[:, None]
        weight = self.value_weight().to(stream)
        value = torch.einsum("bnd,hvd->bhnv", stream, weight)
        modulations = tuple(found for found in self.statistics if isinstance(found, Measured))
        return value, self.per_head(compose(steps, modulations, value).matrix), None


@dataclass(frozen=True, eq=False)
class FeedForwardRecord:
    """One feed-forward layer of one pass: it reads ``stream`` and adds ``output``, both ``(B, n, d)``.

    If it changes some tokens only, these are the n tokens, and ``outputs`` says which they are. If what it adds is a
    linear map of several tokens, ``sources`` says of which. Where the resolution changes, ``stream`` is merged.
    """

    branch: FeedForwardBranch
    stream: torch.Tensor
    output: torch.Tensor
    outputs: TokenMap | None = None
    sources: MergingRecord | None = None


@dataclass(frozen=True, eq=False)
class StageRecord:
    """One stage of one pass: ``summed = stream + sum of the branches``, all ``(B, n, d)``; or a change of resolution.

    Attributes:
        stage: Its description.
        grid: Rows and columns of the patch tokens of ``following``.
        stream: ``E``.
        following: The next stage's stream: the sum, or a norm of it.
        branches: Empty for a block that is not requested.
        summed: The sum, if ``following`` is a norm of it.
        merging: The change of resolution; None if there is none.
        following_gradient: The gradient of the explained output at ``following``, if requested.
        stream_gradient: That at ``stream``.
    """

    stage: Stage
    grid: Grid
    stream: torch.Tensor
    following: torch.Tensor
    branches: tuple[AttentionRecord | FeedForwardRecord, ...] = ()
    summed: torch.Tensor | None = None
    merging: MergingRecord | None = None
    following_gradient: torch.Tensor | None = None
    stream_gradient: torch.Tensor | None = None

    @property
    def keeps(self) -> bool:
        """Whether the branches are added to something; otherwise they replace the stream."""
        return self.merging is None or not self.merging.replaced

    @property
    def attentions(self) -> tuple[AttentionRecord, ...]:
        """The attention layers among the branches."""
        return tuple(branch for branch in self.branches if isinstance(branch, AttentionRecord))


@dataclass(frozen=True, eq=False)
class Pass:
    """The record of one pass of a model.

    Attributes:
        output: The model's output.
        stages: The record of each stage, in the order in which they are computed.
        readout: The weights that average the final tokens into the classified vector, ``(B, n)``; with a pooling head,
            those of its queries.
        pooling: The record of a pooling head.
        image_size: Height and width of the image that the model received.
        grid: Rows and columns of the patch tokens that enter the first stage.
        extent: Height and width in pixels that the grid covers.
        features: Why the output has no classes, if a model that returns features is explained itself.
        problem: The disagreement with the layout; None if there is none.
    """

    output: torch.Tensor
    stages: tuple[StageRecord, ...]
    readout: torch.Tensor
    pooling: AttentionRecord | None
    image_size: tuple[int, int]
    grid: Grid
    extent: tuple[int, int]
    features: str | None = None
    problem: str | None = None


def spots(tokens: int) -> list[int]:
    """The tokens that are compared in every pass: the first, the middle and the last."""
    return [0, tokens // 2, tokens - 1]
