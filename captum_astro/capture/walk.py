"""One forward pass and one walk back: each layer is handed over as its gradient arrives, then freed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from captum_astro.capture.guard import undisturbed
from captum_astro.capture.identity import SpotCheck
from captum_astro.capture.recorder import Recorder
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, StageRecord
from captum_astro.functional.attention import widen
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import AttentionBranch


class Walker(Protocol):
    """What a method does with the layers, which come from the last to the first."""

    def begin(self, readout: torch.Tensor, pooling: AttentionRecord | None) -> None:
        """Start from the read-out: weights over the final tokens ``(B, n)``; with a pooling head, over its queries."""

    def step(self, record: StageRecord) -> None:
        """Use one stage; it is freed when this returns."""

    def end(self, stream: torch.Tensor) -> None:
        """Finish with the residual stream that entered the first stage, ``(B, n, d)``."""


@dataclass(frozen=True)
class Seed:
    """Where the backward pass starts.

    Attributes:
        gradient: The gradient at the model's output, scaled for each sample so that nothing underflows.
        scale: What each sample's gradient is to be multiplied by, ``(B,)``.
    """

    gradient: torch.Tensor
    scale: torch.Tensor

    def full(self) -> torch.Tensor:
        """The gradient at the output as it is."""
        return self.gradient * _each(self.scale, self.gradient)

    def scaled(self, gradient: torch.Tensor) -> torch.Tensor:
        """A gradient that arrived from there, ``(B, ...)``, as it is; at least in float32."""
        wide = widen(gradient)
        return wide * _each(self.scale.to(wide), wide)


def _each(scale: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return scale.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Passed:
    """What is known after a walk.

    Attributes:
        output: The model's output.
        image_size: Height and width of the image that the model was given.
        grid: Rows and columns of its patches.
        extent: Height and width in pixels that the grid covers.
        problem: What does not agree with the layout; None if all does.
    """

    output: torch.Tensor
    image_size: tuple[int, int]
    grid: tuple[int, int]
    extent: tuple[int, int]
    problem: str | None


def walk(
    layout: Layout,
    model: nn.Module,
    forward: Callable[[], torch.Tensor],
    walker: Walker,
    *,
    seed: Callable[[torch.Tensor], Seed] | None = None,
    blocks: Collection[int] | None = None,
    stream_gradients: bool = False,
    explained: Callable[[torch.Tensor], torch.Tensor] | None = None,
    verify: bool = True,
) -> Passed:
    """Run a model once and hand its stages to a walker, last first.

    With a seed, a stage is handed over when the gradient has arrived at its attention. The gradient starts at
    the first stage asked for, so what comes before it costs a forward pass only.

    Args:
        layout: Of the model that is explained.
        model: The module that ``forward`` runs, the model itself or a wrapper of it.
        forward: Runs it.
        walker: The method.
        seed: Gives the gradient at the output; None for methods without gradients.
        blocks: The blocks whose stages are handed over; all of them by default.
        stream_gradients: Hand over the gradient at each following residual stream too.
        explained: For a layout with an output per position: says which is read, as weights ``(B, n)``, of the output.
        verify: Raise when a spot check fails, rather than report it.

    Raises:
        ValueError: If no attention layer is among the blocks.
        UnsupportedModelError: If a layer computed something other than the layout says.
    """
    wanted = [blocks is None or stage.block in blocks for stage in layout.stages]
    attended = [
        index
        for index, stage in enumerate(layout.stages)
        if wanted[index] and any(isinstance(branch, AttentionBranch) for branch in stage.branches)
    ]
    if not attended:
        raise ValueError(f"layers selects no attention layer; the blocks are numbered 0 to {layout.stages[-1].block}.")
    first = attended[0] if seed is not None else None
    recorder = Recorder(layout, first, stream_gradients and seed is not None)
    with undisturbed(model), torch.inference_mode(False), torch.set_grad_enabled(seed is not None):
        try:
            with recorder:
                output = forward()
            with torch.autocast(output.device.type, enabled=False):  # relevance is not computed in half precision
                passed = _Walk(recorder, walker, wanted, first).back(output, seed, explained)
        finally:
            recorder.clear()
    if verify and passed.problem is not None:
        raise UnsupportedModelError(passed.problem)
    return passed


class _Walk:
    """The state of one walk: the next stage to hand over, and the gradients that have arrived for it."""

    def __init__(self, recorder: Recorder, walker: Walker, wanted: list[bool], first: int | None) -> None:
        self._recorder, self._walker, self._wanted, self._first = recorder, walker, wanted, first
        self._layout = recorder.layout
        self._next = len(recorder.stages) - 1
        self._spot = SpotCheck(self._layout)
        self._pooling: AttentionRecord | None = None
        self._records: dict[int, list[AttentionRecord | FeedForwardRecord]] = {}
        self._waiting: dict[int, int] = {}
        self._begun = False
        self._scale: torch.Tensor | None = None
        self._positions: torch.Tensor | None = None

    def back(
        self,
        output: torch.Tensor,
        seed: Callable[[torch.Tensor], Seed] | None,
        explained: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> Passed:
        self._collect()
        if self._layout.per_position:
            assert explained is not None
            self._positions = explained(output.detach())
        geometry = self._geometry(output)
        if seed is None:
            self._begin()
        else:
            self._backward(output, seed(output.detach()))
        with torch.no_grad():
            self._advance(0)
            self._walker.end(self._recorder.streams[0])
        return Passed(output.detach(), *geometry, self._spot.problem())

    def _collect(self) -> None:
        recorder, layout = self._recorder, self._layout
        missing = [i for i in range(len(recorder.stages) + 1) if i not in recorder.streams]
        if missing:
            raise UnsupportedModelError(f"The residual stream before stage {missing[0]} was not seen in the pass.")
        for index, stage in enumerate(recorder.stages):
            stream = recorder.streams[index]
            self._records[index] = [
                recorder.attention(branch, stream)
                if isinstance(branch, AttentionBranch)
                else recorder.feed_forward(branch, stream)
                for branch in stage.branches
            ]
        if layout.pooling is not None:
            pooled = recorder.streams[len(recorder.stages)][:, layout.pooling.first_token :]
            self._pooling = recorder.attention(layout.pooling.branch, pooled)
            self._pooling.first_key = layout.pooling.first_token

    def _geometry(self, output: torch.Tensor) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        size, (batch, tokens, _) = self._recorder.image_size, self._recorder.streams[0].shape
        if len(output) != batch:
            raise UnsupportedModelError(
                f"{type(self._layout.model).__name__} was given {batch} images for {len(output)} outputs: a wrapper "
                f"changes the batch. Explain the model itself."
            )
        if size is None:
            kind = "token ids (B, n)" if self._layout.reads_text else "an image (B, C, H, W)"
            raise UnsupportedModelError(f"{type(self._layout.model).__name__} was not given {kind}.")
        grid = self._layout.grid(*size)
        if grid[0] * grid[1] + self._layout.num_prefix_tokens != tokens:
            raise UnsupportedModelError(
                f"An image of {size[0]} x {size[1]} should give {grid[0]} x {grid[1]} patches and "
                f"{self._layout.num_prefix_tokens} prefix tokens, but {tokens} tokens were seen. Is patch dropout on? "
                f"Call model.eval()."
            )
        return size, grid, self._layout.extent(*size)

    def _backward(self, output: torch.Tensor, seed: Seed) -> None:
        first, recorder = self._first, self._recorder
        assert first is not None
        self._scale = seed.scale
        outputs: dict[int, list[torch.Tensor]] = {}
        for index in range(first, len(recorder.stages)):
            heads = [record for record in self._records[index] if isinstance(record, AttentionRecord)]
            if heads and self._wanted[index]:
                self._waiting[index] = len(heads)
                outputs[index] = [self._listen(record, index, seed.scale) for record in heads]
        if self._pooling is not None:
            self._listen(self._pooling, len(recorder.stages), seed.scale)
        if recorder.final is not None and recorder.final.requires_grad:
            recorder.final.register_hook(self._spot.readout_gradient)
        if not output.requires_grad:
            raise UnsupportedModelError(
                "The output does not depend on the tokens by a gradient. Does the model run under torch.no_grad()?"
            )
        try:
            torch.autograd.grad(output, outputs[first], seed.gradient.to(output))
        except RuntimeError as error:
            if "appears to not have been used" in str(error):
                raise UnsupportedModelError(
                    f"No gradient arrives at {self._layout.stages[first].branches[0].name}: the output does not use it."
                ) from error
            raise
        if not self._begun:
            with torch.no_grad():
                self._begin()

    def _listen(self, record: AttentionRecord, index: int, scale: torch.Tensor) -> torch.Tensor:
        output = self._recorder.heads_output(record.branch)

        def arrived(gradient: torch.Tensor) -> None:
            with torch.no_grad():
                record.gradient = record.as_heads(widen(gradient)) * scale.to(widen(gradient))[:, None, None, None]
                if index == len(self._recorder.stages):
                    self._begin()
                    return
                if not self._begun:
                    self._begin()
                self._waiting[index] -= 1
                if self._waiting[index] == 0:
                    self._advance(index)

        output.register_hook(arrived)
        return output

    def _demand_gradient(self, branches: list[AttentionRecord | FeedForwardRecord]) -> None:
        for record in branches:
            if isinstance(record, AttentionRecord) and record.gradient is None:
                raise UnsupportedModelError(
                    f"No gradient arrives at {record.branch.name}: the output does not use it. Choose the blocks "
                    f"that it uses by layers= or start_layer=, or explain the whole model."
                )

    def _begin(self) -> None:
        self._begun = True
        final = self._recorder.streams[len(self._recorder.stages)]
        pooling = self._layout.pooling
        if self._pooling is not None and pooling is not None:
            weights = pooling.rows(self._pooling.attention.queries)
        elif self._positions is not None:
            weights = self._positions
        else:
            weights = self._layout.readout_of(self._recorder.inputs, final.shape[1])
        weights = weights.to(device=final.device, dtype=widen(final).dtype).expand(final.shape[0], -1)
        self._spot.readout(weights, final, self._pooling, self._recorder.pooled)
        self._walker.begin(weights, self._pooling)
        self._pooling = None

    def _advance(self, until: int) -> None:
        """Hand over every stage from the next one back to ``until``."""
        recorder = self._recorder
        while self._next >= until:
            index, self._next = self._next, self._next - 1
            stage, branches = recorder.stages[index], self._records.pop(index)
            following, summed = recorder.streams.pop(index + 1), recorder.summed.pop(index, None)
            if self._wanted[index]:
                if self._scale is not None:
                    self._demand_gradient(branches)
                gradient = recorder.stream_gradients.pop(index + 1, None)
                if gradient is not None and self._scale is not None:
                    gradient = widen(gradient) * self._scale.to(widen(gradient))[:, None, None]
                record = StageRecord(stage, recorder.streams[index], following, branches, gradient, summed)
                self._spot.stage(record)
                self._walker.step(record)
            for branch in stage.branches:
                recorder.forget(branch)
