"""What the recorder notes for each stage while the model runs."""

from __future__ import annotations

import torch

from captum_astro.capture.affine import compose
from captum_astro.capture.attention_notes import AttentionNotes
from captum_astro.capture.records import FeedForwardRecord
from captum_astro.capture.step_notes import Around, MergingNotes, placed
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


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


class FeedForwardNotes:
    """Notes of one feed-forward branch."""

    def __init__(self, branch: FeedForwardBranch) -> None:
        self.branch = branch
        self.sources = None if branch.sources is None else MergingNotes(branch.sources)
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
        outputs = placed(self.branch.outputs, around.grid, around.before)
        stream = around.before if around.merging is None else around.merging.rebuilt()
        stream = stream if outputs is None else outputs.gather(stream)
        sources = None if self.sources is None else self.sources.record(around.before, around.grid)
        return FeedForwardRecord(self.branch, stream, output, outputs, sources)


class StageNotes:
    """Notes of one stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.stream = StreamNotes(stage.stream)
        self.summed: torch.Tensor | None = None
        self.rest: torch.Tensor | None = None
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
        self.summed = self.stage.summed.tokens(x.detach().clone())  # an activation may change it in place

    def note_rest(self, x: torch.Tensor) -> None:
        """The tokens that cannot be read together with the first ones."""
        assert self.stage.rest is not None
        self.rest = self.stage.rest.tokens(x.detach())
