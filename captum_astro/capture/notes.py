"""What the recorder notes for each stage while the model runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from captum_astro.capture.affine import Statistics, compose, inverse_deviation
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, MergingRecord, spots
from captum_astro.capture.windows import as_samples, recorded_as_samples
from captum_astro.functional.attention import Attention, AttentionMap, widen
from captum_astro.functional.operations import Recorded
from captum_astro.functional.token_map import Grid, TokenMap
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import (
    AttentionBranch,
    FeedForwardBranch,
    Measured,
    Merging,
    Modulated,
    Norm,
    Rearrange,
    Stage,
    Step,
    Tap,
)


@dataclass(frozen=True, eq=False)
class Around:
    """The tokens around a stage.

    Attributes:
        before: The residual stream that enters it, ``(images, tokens, d)``.
        grid: The grid of that stream.
        after: The stream that leaves it.
        next_grid: The grid of that one.
        merging: The change of resolution between them, if its branches are added after one.
    """

    before: torch.Tensor
    grid: Grid
    after: torch.Tensor
    next_grid: Grid
    merging: MergingRecord | None = None


class StepNotes:
    """The statistics of the steps that have some."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.measured = [step for step in steps if isinstance(step, Norm | Modulated)]
        self._found: list[torch.Tensor | Measured | None] = [None] * len(self.measured)

    def note(self, number: int, x: torch.Tensor) -> None:
        """Measure the input of one of `measured`."""
        step, x = self.measured[number], x.detach()
        if isinstance(step, Modulated):
            self._found[number] = step.measure(x)
        else:
            found = inverse_deviation(step.module, x if step.channels == "last" else x.movedim(1, -1))
            self._found[number] = found if step.per_head else found.reshape(len(x), -1)

    def statistics(self, outputs: TokenMap | None, name: str) -> Statistics:
        """All statistics, those of whole images split into the branch's windows."""
        found: list[torch.Tensor | Measured] = []
        for step, one in zip(self.measured, self._found, strict=True):
            if one is None:
                raise UnsupportedModelError(f"{type(step.module).__name__} of {name} did not run in the pass.")
            windowed = outputs is not None and isinstance(step, Norm) and step.after_windows
            found.append(outputs.gather(one) if windowed and outputs and isinstance(one, torch.Tensor) else one)
        return tuple(found)


class StreamNotes:
    """Notes of the residual stream at one place.

    Attributes:
        tap: Where it is read.
        seen: The tensor, with its graph; None until it has been seen.
        times: How often it was seen.
        gradients: The gradient of the explained output there, if it is requested and arrives.
    """

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.seen: torch.Tensor | None = None
        self.times = 0
        self.gradients: list[torch.Tensor] = []

    def note(self, x: torch.Tensor) -> None:
        """The stream."""
        self.seen, self.times = x, self.times + 1


class AttentionNotes:
    """Notes of one attention branch.

    Attributes:
        branch: Its description.
        outputs: The output of each of its maps, with the graph.
        gradients: The gradient of the explained output at those outputs for which it is requested.
    """

    def __init__(self, branch: AttentionBranch) -> None:
        self.branch = branch
        self.steps = StepNotes(branch.steps)
        self.outputs: list[torch.Tensor] = []
        self.gradients: list[torch.Tensor] = []
        self._maps: list[AttentionMap] = []
        self._value: torch.Tensor | None = None
        self._constant: torch.Tensor | None = None
        self._read: torch.Tensor | None = None
        self._entered: torch.Tensor | None = None
        self._values: Measured | None = None
        self.reduced = None if branch.reduced is None else MergingNotes(branch.reduced)

    def note(self, recorded: Recorded, output: torch.Tensor) -> None:
        """One call of an attention function inside the branch."""
        windows = self.branch.windows
        dimensions = 4 if windows is None else 5
        if output.ndim != dimensions or recorded.value.ndim != dimensions:
            return
        if windows is not None:
            recorded = recorded_as_samples(recorded, windows, self.branch.name)
        self.outputs.append(output)
        self._maps.append(recorded.map)
        self._value, self._constant = recorded.value, recorded.constant

    def note_read(self, x: torch.Tensor) -> None:
        """The input tokens of the value projection: a few of them are kept, or all until their windows are known."""
        x = (self.branch.reads or Tap(self.branch.module)).tokens(x)
        if x.ndim == 3:
            self._read = x.detach() if self.branch.windows is not None else x.detach()[:, spots(x.shape[1])]

    def note_entering(self, x: torch.Tensor) -> None:
        """The tokens that enter the branch: a few of them are kept, or all until it is known which are in windows."""
        assert self.branch.entering is not None
        tokens = self.branch.entering.tokens(x.detach())
        self._entered = tokens[:, spots(tokens.shape[1])] if self.branch.sources is None else tokens

    def note_values(self, x: torch.Tensor) -> None:
        """The input of a modulated value projection."""
        assert self.branch.modulated_values is not None
        self._values = self.branch.modulated_values.measure(x.detach())

    def check(self) -> None:
        """Check that the branch ran the attention that the layout describes.

        Raises:
            UnsupportedModelError: If it ran a different number of softmaxes.
        """
        branch, expected = self.branch, len(self.branch.weights())
        if len(self._maps) != expected:
            raise UnsupportedModelError(
                f"{branch.name} ({type(branch.module).__name__}) ran {len(self._maps)} visible softmax attentions "
                f"where {expected} was expected. It must call F.scaled_dot_product_attention, or softmax and a "
                f"matrix product on (batch, heads, queries, keys), once in a forward pass."
            )

    def record(self, block: int, around: Around) -> AttentionRecord:
        """The record, after the backward pass.

        Args:
            block: The index of its block.
            around: The tokens around its stage.
        """
        assert self._value is not None
        value, branch, residual = self._value, self.branch, around.before
        outputs = _placed(branch.outputs, around.next_grid, around.after)
        sources = _placed(branch.sources, around.grid, residual)
        reduced = None if self.reduced is None else self.reduced.record(residual, around.grid)
        return AttentionRecord(
            branch,
            block,
            residual,
            Attention(tuple(self._maps), branch.weights(), value, self._constant),
            tuple(self._as_heads(output.detach(), value) for output in self.outputs),
            tuple(self._as_heads(gradient, value) for gradient in self.gradients),
            self.steps.statistics(outputs, branch.name),
            self._read if branch.windows is None else _places(self._read, sources),
            _places(self._entered, sources),
            self._values,
            outputs,
            sources if reduced is None else reduced.tokens,
            reduced,
            around.merging,
            residual.shape[1] - around.grid[0] * around.grid[1],
        )

    def _as_heads(self, output: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The heads' outputs ``(B, H, q, d_v)``, split further if there is a map per channel."""
        output = widen(output if self.branch.windows is None else as_samples(output, self.branch.windows))
        return output if output.shape[1] == value.shape[1] else output.transpose(-2, -1).flatten(1, 2)[..., None]


class FeedForwardNotes:
    """Notes of one feed-forward branch."""

    def __init__(self, branch: FeedForwardBranch) -> None:
        self.branch = branch
        self._output: torch.Tensor | None = None

    def note(self, x: torch.Tensor) -> None:
        """The tapped tensor."""
        self._output = self.branch.output.tokens(x.detach().clone())  # the model may add to it in place

    def record(self, around: Around) -> FeedForwardRecord:
        """The record: what is added to the stream."""
        if self._output is None:
            raise UnsupportedModelError(f"{self.branch.name} did not run in the pass.")
        out = compose(self.branch.steps, (), self._output[:, None])
        output = self._output if out.matrix is None else self._output @ out.matrix.to(self._output.dtype)
        output = output if out.constant is None else output + out.constant
        outputs = _placed(self.branch.outputs, around.grid, around.before)
        stream = around.before if outputs is None else outputs.gather(around.before)
        return FeedForwardRecord(self.branch, stream, output, outputs)


class MergingNotes:
    """Notes of one change of resolution."""

    def __init__(self, merging: Merging) -> None:
        self.merging = merging
        self.steps = StepNotes(merging.steps)
        self._entered: torch.Tensor | None = None
        self._merged: torch.Tensor | None = None

    def note_entering(self, x: torch.Tensor) -> None:
        """The old tokens as they are merged."""
        assert self.merging.entering is not None
        self._entered = self.merging.entering.tokens(x.detach())

    def note_merged(self, x: torch.Tensor) -> None:
        """The new tokens: a few of them are kept."""
        assert self.merging.merged is not None
        tokens = self.merging.merged.tokens(x.detach())
        self._merged = tokens[:, spots(tokens.shape[1])]

    def record(self, residual: torch.Tensor, grid: Grid) -> MergingRecord:
        """The record."""
        residual = residual if self._entered is None else self._entered
        tokens = self.merging.tokens(grid).to(residual.device)
        _check_size(tokens, residual, self.merging.name)
        like = residual.new_empty(0, tokens.index.shape[2], 0, residual.shape[2])
        map_out = compose(self.merging.steps, self.steps.statistics(None, self.merging.name), like)
        return MergingRecord(tokens, residual, map_out, self._merged, self.merging.maximum)


class StageNotes:
    """Notes of one stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.stream = StreamNotes(stage.stream)
        self.summed: torch.Tensor | None = None
        self.branches: list[AttentionNotes | FeedForwardNotes] = [
            AttentionNotes(branch) if isinstance(branch, AttentionBranch) else FeedForwardNotes(branch)
            for branch in stage.branches
        ]
        self.merging = None if stage.merging is None else MergingNotes(stage.merging)

    @property
    def attentions(self) -> list[AttentionNotes]:
        """Notes of the attention layers among the branches."""
        return [branch for branch in self.branches if isinstance(branch, AttentionNotes)]

    def note_summed(self, x: torch.Tensor) -> None:
        """The sum before a norm of the residual stream."""
        assert self.stage.summed is not None
        self.summed = self.stage.summed.tokens(x.detach())


def _placed(way: Rearrange | None, grid: Grid, residual: torch.Tensor) -> TokenMap | None:
    if way is None:
        return None
    tokens = way(grid).to(residual.device)
    _check_size(tokens, residual, "A token map")
    return tokens


def _check_size(tokens: TokenMap, residual: torch.Tensor, name: str) -> None:
    if tokens.tokens != residual.shape[1]:
        raise UnsupportedModelError(
            f"{name} is for {tokens.tokens} tokens, but the residual stream there has {residual.shape[1]}. Does the "
            f"model accept images of this size?"
        )


def _places(tokens: torch.Tensor | None, sources: TokenMap | None) -> torch.Tensor | None:
    """Of whole images, those tokens of every window that are compared; without windows, they were chosen before."""
    if tokens is None or sources is None:
        return tokens
    return sources.only(spots(sources.index.shape[1])).gather(tokens)
