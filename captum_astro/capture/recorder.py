"""Hooks and a function mode that record one forward pass, stage by stage."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from captum_astro.capture.attention_notes import AttentionNotes
from captum_astro.capture.early import Early, as_final, block_ends, mean_in_place
from captum_astro.capture.entry import Entry
from captum_astro.capture.explaining import current
from captum_astro.capture.hooks import Hooks
from captum_astro.capture.notes import FeedForwardNotes, StageNotes, StreamNotes
from captum_astro.capture.step_notes import MergingNotes, StepNotes
from captum_astro.capture.written_out import WrittenOut
from captum_astro.functional.operations import ATTENTION
from captum_astro.layouts.base import Layout
from captum_astro.layouts.steps import Tap


class Recorder(TorchFunctionMode):
    """Records attention, residual streams and feed-forward outputs while a model runs, in this explanation only.

    Functions that compute attention are intercepted as they are called, so fused attention stays on. Explicit attention
    (a softmax, optional dropout, a matrix product) is recorded too, at the cost of storing its map.

    Args:
        layout: The layout of the model to run.
        early: The blocks whose tokens are read instead of the final ones; None for the final ones.
        cut: Cut what the attention of blocks returns off the graph, so that gradients pass around it, and keep the
            scores of explicit attention.

    Attributes:
        stages: The notes of each stage.
        pooling: The notes of a pooling head.
        final: The notes of the residual stream that leaves the last stage.
        behind: The tensors that the rest of the model reads, with their graphs: that stream, or the early blocks'.
        read: The leaf that stands for them in the rest of the graph, stacked along the batch, so that what else the
            output depends on is seen.
        pooled: The final tokens, normalised, and the pooled vector, if the layout has taps for them.
        entry: The images, patches or token ids that the model received.
        returned: What it returned, before a wrapper's head.
    """

    def __init__(self, layout: Layout, early: Early | None = None, cut: bool = False) -> None:
        super().__init__()
        self.layout, self._early, self._cut = layout, early, cut
        self.stages = [StageNotes(stage) for stage in layout.stages]
        self.pooling = None if layout.pooling is None else AttentionNotes(layout.pooling.branch)
        self.final = StreamNotes(layout.final_stream)
        self.behind: list[torch.Tensor] = []
        self.read: torch.Tensor | None = None
        self.pooled: dict[str, torch.Tensor] = {}
        self.returned: torch.Tensor | None = None
        self.entry = Entry(layout.model, layout)
        self._running: list[AttentionNotes] = []
        self._written = WrittenOut(scores=cut)
        self._hooks = Hooks()
        self._explanation = current()

    def __enter__(self) -> Recorder:
        try:
            self._install()
        except BaseException:
            self._hooks.close()
            raise
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.close()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._running and current() == self._explanation:
            if func in ATTENTION:
                result = self._in_graph(result)
                self._running[-1].note(ATTENTION[func].recorded(*args, **kwargs), result)
            elif (recorded := self._written.see(func, args, result)) is not None:
                swapped = self._written.swapped
                result = self._in_graph(result)
                seen = result.transpose(-2, -1) if swapped else result
                self._running[-1].note(recorded, seen)
                result = seen.transpose(-2, -1) if swapped else result  # the noted tensor stays in the graph
        return result

    def _in_graph(self, result: torch.Tensor) -> torch.Tensor:
        if not self._cut or self._running[-1] is self.pooling:
            return result
        return result.detach().requires_grad_(True)

    def stream(self, index: int) -> StreamNotes:
        """The notes of the residual stream before a stage, or after the last."""
        return self.final if index == len(self.stages) else self.stages[index].stream

    def attentions(self, stages: list[int]) -> list[AttentionNotes]:
        """The notes of the attention layers of some stages, and of a pooling head."""
        found = [notes for index in stages for notes in self.stages[index].attentions]
        return found if self.pooling is None else [*found, self.pooling]

    def _install(self) -> None:
        layout = self.layout
        self.entry.install(self._hooks)
        self._hooks.after(layout.model, self._note_returned)
        for index, notes in enumerate(self.stages):
            self._hooks.tap(notes.stage.stream, partial(self._note_stream, index))
            if notes.stage.summed is not None:
                self._hooks.tap(notes.stage.summed, notes.note_summed)
            if notes.stage.rest is not None:
                self._hooks.tap(notes.stage.rest, notes.note_rest)
            if notes.merging is not None:
                self._watch_merging(notes.merging)
            for branch in notes.branches:
                if isinstance(branch, FeedForwardNotes):
                    self._hooks.tap(branch.branch.output, branch.note)
                    if branch.sources is not None:
                        self._watch_merging(branch.sources)
                else:
                    self._watch(branch)
        self._hooks.tap(layout.final_stream, self._note_final)
        if layout.pooling is not None and self.pooling is not None:
            self._watch(self.pooling)
            self._hooks.tap(layout.pooling.pooled, partial(self._note_pooled, "pooled", layout.pooling.pooled))
        if layout.votes is not None:
            self._hooks.tap(layout.votes[0], partial(self._note_pooled, "votes", layout.votes[0]))
        if layout.pooled is not None:
            if self._early is not None and self._early.averaged == "normalised":
                self._hooks.tap(layout.pooled[0], partial(mean_in_place, layout.pooled[0]))
            for tap, name in zip(layout.pooled, ("normalised", "pooled"), strict=True):
                self._hooks.tap(tap, partial(self._note_pooled, name, tap))

    def _watch(self, notes: AttentionNotes) -> None:
        branch = notes.branch
        self._hooks.before(branch.module, partial(self._enter_attention, notes))
        self._hooks.finally_(branch.module, self._leave_attention)
        self._hooks.tap(branch.reads or Tap(branch.module), notes.note_read)
        if branch.entering is not None:
            self._hooks.tap(branch.entering, notes.note_entering)
        if branch.output is not None:
            self._hooks.tap(branch.output, notes.note_output)
        if branch.mixed is not None:
            self._hooks.tap(branch.mixed, self._written.follow)
        self._watch_steps(notes.steps)
        if notes.reduced is not None:
            self._watch_merging(notes.reduced)
        if branch.modulated_values is not None:
            self._hooks.tap(Tap(branch.modulated_values.module), notes.note_values)
        if branch.gate is not None:
            self._hooks.tap(branch.gate, notes.note_gate)
        if branch.value_norm is not None:
            self._hooks.tap(Tap(branch.value_norm), notes.note_value_norm)

    def _watch_merging(self, notes: MergingNotes) -> None:
        self._watch_steps(notes.steps)
        if notes.merging.entering is not None:
            self._hooks.tap(notes.merging.entering, notes.note_entering)
        if notes.merging.merged is not None:
            self._hooks.tap(notes.merging.merged, notes.note_merged)

    def _watch_steps(self, notes: StepNotes) -> None:
        for number, step in enumerate(notes.measured):
            self._hooks.tap(Tap(step.module), partial(notes.note, number))

    def _enter_attention(self, notes: AttentionNotes, x: torch.Tensor) -> None:
        self._running.append(notes)

    def _leave_attention(self) -> None:
        if self._running:
            self._running.pop()
            self._written.forget()

    def _note_stream(self, index: int, x: torch.Tensor) -> None:
        if index == 0 and not x.requires_grad:
            x.requires_grad_(True)  # a leaf: nothing before it requires a gradient
        self.stages[index].stream.note(x)

    def _note_returned(self, x: torch.Tensor) -> None:
        self.returned = x.detach()

    def _note_final(self, x: torch.Tensor) -> torch.Tensor:
        self.final.note(x)
        early = self._early
        self.behind = [x] if early is None else [self._after_block(block, x) for block in early.blocks]
        read = x if early is None else torch.cat(self.behind)
        self.read = read.detach().requires_grad_(True)
        # what follows may change it in place
        return self.read.clone() if early is None else early.given(self.layout, self.read)

    def _after_block(self, block: int, final: torch.Tensor) -> torch.Tensor:
        """The tokens that leave a block, in the form of the final ones."""
        notes = self.stream(block_ends(self.layout, list(range(len(self.stages))))[block])
        assert notes.seen is not None
        return as_final(self.layout, block, notes.seen, notes.tap, final)

    def _note_pooled(self, name: str, tap: Tap, x: torch.Tensor) -> None:
        self.pooled[name] = tap.tokens(x.detach())
