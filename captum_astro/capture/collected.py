"""The notes of one forward pass, its backward pass, and the records made from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from captum_astro.capture.attention_notes import AttentionNotes
from captum_astro.capture.call import Call, no_gradient
from captum_astro.capture.early import Early, block_ends
from captum_astro.capture.entry import check_batch, check_called_once
from captum_astro.capture.features import is_of_huggingface, lacks_classes
from captum_astro.capture.merging_record import MergingRecord
from captum_astro.capture.notes import FeedForwardNotes, StageNotes, StreamNotes
from captum_astro.capture.recorder import Recorder
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, StageRecord
from captum_astro.capture.rules_mode import Rules
from captum_astro.capture.step_notes import Around
from captum_astro.capture.target import LargestOutput, Seed
from captum_astro.functional.attention import widen
from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError

# at the output of each block, or of each stage: each residual add
Streams = Literal["blocks", "stages"]

# a tensor whose gradient is wanted, and where it goes
Asked = tuple[torch.Tensor, list[torch.Tensor]]


@dataclass(frozen=True)
class Wanted:
    """What to record of a pass.

    Attributes:
        gradient: Whether to run a backward pass.
        blocks: The blocks whose branches are recorded; all by default.
        streams: Also record the gradient at the input and the output of each block, or at the output of each stage.
        early: The blocks whose tokens are read as if they were the final ones, stacked along the batch of everything
            after them. The gradients in each are those of its own output, and nothing is compared with the layout.
            None for the final tokens.
        cut: Gradients pass around the attention of blocks, along the residual stream; where none arrives, it is zero.
            The scores of explicit attention are kept.
        rules: Propagation rules for both passes, which then run in at least float32. They do not change outputs; the
            pass is compared with the layout only if their gradients show which tokens are read.
        verify: Raise an error if something does not match the layout, instead of reporting it.
    """

    gradient: bool = True
    blocks: Collection[int] | None = None
    streams: Streams | None = None
    early: Early | None = None
    cut: bool = False
    rules: Rules | None = None
    verify: bool = True

    def stages(self, layout: Layout) -> list[int]:
        """The indices of the stages whose branches are recorded."""
        return [i for i, stage in enumerate(layout.stages) if self.blocks is None or stage.block in self.blocks]


class Collected:
    """The notes of a recorder, with the gradients once `backward` has run.

    Args:
        call: The model and its inputs.
        wanted: What to record.
        recorder: The recorder after the forward pass.
        output: The output of the model.

    Attributes:
        layout: The layout of the model.
        streams: The residual stream before each stage and after the last, ``(B, n, d)``.
        image_size: Height and width of the image that the model received.
        grids: Rows and columns of the patch tokens of each stream.

    Raises:
        UnsupportedModelError: If something did not run, or not as often as the layout says.
    """

    def __init__(self, call: Call, wanted: Wanted, recorder: Recorder, output: torch.Tensor) -> None:
        assert call.layout is not None
        self._readings = 1 if wanted.early is None else len(wanted.early.blocks)
        self.call, self.wanted = replace(call, target=call.target.repeated(self._readings)), wanted
        self.recorder, self.output, self.layout = recorder, output, call.layout
        self._chosen = wanted.stages(self.layout)
        self.streams = self._seen_streams()
        self.image_size, self.grids = self._geometry()
        self._heads = [notes for index in self._chosen for notes in recorder.stages[index].attentions]
        if recorder.pooling is not None:
            self._heads.append(recorder.pooling)
        for notes in self._heads:
            notes.check()

    def backward(self, image: torch.Tensor | None = None) -> None:
        """The gradients at the final stream, the heads' outputs, and, if requested, the blocks' outputs.

        The final stream is cut off the graph, so that first only the head is passed, and it is seen whether the output
        depends on anything else.

        Args:
            image: An image with its graph, which the output may not depend on otherwise.

        Raises:
            UnsupportedModelError: If one of them does not arrive.
        """
        output, recorder, plain = self.output, self.recorder, self.wanted.rules is None
        seed = self._seed()
        if recorder.read is None or not all(tokens.requires_grad for tokens in recorder.behind):
            raise no_gradient()
        head = self._asked([] if recorder.pooling is None else [recorder.pooling])
        begins = [x for x in (recorder.stages[0].stream.seen, image) if x is not None]
        wanted = [recorder.read, *(x for x, _ in head), *begins]
        start = (seed.gradient if plain else seed.full()).to(output)
        read, *found = torch.autograd.grad(output, wanted, start, allow_unused=True)
        found, around = found[: len(head)], found[len(head) :]
        self._check_read(read, around)
        self._keep([recorder.final.gradients, *(g for _, g in head)], [read, *found], seed)
        parts = read.chunk(self._readings) if self.wanted.gradient else ()
        for number, (tokens, layers, part) in enumerate(zip(recorder.behind, self._layers(), parts, strict=False)):
            if layers:
                slopes = torch.autograd.grad(tokens, [x for x, _ in layers], part, allow_unused=True)
                self._keep([g for _, g in layers], slopes, seed.part(number, len(output) // self._readings))
        for notes in self._heads if self.wanted.gradient else ():
            if not notes.gradients and self.wanted.cut:
                notes.gradients += [torch.zeros_like(x) for x, _ in self._asked([notes])]
            elif not notes.gradients:
                raise UnsupportedModelError(
                    f"No gradient arrives at {notes.branch.name}: the output does not use it. Choose the blocks "
                    f"that it uses by layers=, or explain the whole model."
                )

    def _layers(self) -> list[list[Asked]]:
        """The tensors whose gradients are wanted, for each of the tokens that are read: of an early block, its own.

        Only what lies between the two is passed back through, so that all blocks together cost one backward pass.
        """
        if self.wanted.early is None:
            heads = self._asked([notes for notes in self._heads if notes is not self.recorder.pooling])
            streams = ((x, notes.gradients) for notes in self._slopes() if (x := notes.seen) is not None)
            return [[*heads, *((x, gradients) for x, gradients in streams if x.requires_grad)]]
        own: dict[int, list[AttentionNotes]] = {block: [] for block in self.wanted.early.blocks}
        for notes in (self.recorder.stages[index] for index in self._chosen):
            own[notes.stage.block] += notes.attentions
        return [self._asked(heads) for heads in own.values()]

    def _keep(self, where: Sequence[list[torch.Tensor]], found: Sequence[torch.Tensor | None], seed: Seed) -> None:
        """Keep the gradients that arrive, without the seed's scaling."""
        for gradients, gradient in zip(where, found, strict=True):
            if gradient is not None:
                gradients.append(seed.scaled(gradient) if self.wanted.rules is None else gradient)

    def _seed(self) -> Seed:
        """The start of the backward pass; without a target, numbers that do not cancel."""
        output, target = self.output, self.call.target
        if self.wanted.gradient or self.layout.per_position or isinstance(target, LargestOutput):
            return target.seed(output)
        start = torch.rand(output.shape, generator=torch.Generator().manual_seed(0)) + 0.5
        return Seed(start.to(output), output.new_ones(len(output)))

    def _asked(self, heads: list[AttentionNotes]) -> list[Asked]:
        """The heads' outputs whose gradients are needed, and where they go."""
        plain = self.wanted.rules is None
        # differential attention adds its first map with factor 1, so its gradient suffices
        return [
            (x, notes.gradients)
            for notes in heads
            for x in (notes.outputs[: notes.branch.calls] if plain else notes.outputs)
        ]

    def _check_read(self, read: torch.Tensor | None, around: Sequence[torch.Tensor | None]) -> None:
        model = type(self.layout.model).__name__
        if read is None:
            raise UnsupportedModelError(f"The output does not depend on the final tokens of {model}.")
        if any(gradient is not None for gradient in around):
            raise UnsupportedModelError(
                f"The output depends on more than the final tokens of {model}, as with a head on an earlier layer, "
                f"whose share a map would leave out. AttnLRP, ConservativeLRP and LRP follow any head."
            )

    @property
    def features(self) -> str | None:
        """Why the output has no classes, as a model's whose features are returned; None if it may have."""
        if is_of_huggingface(self.call.model):  # which returns its tensors in a container
            return lacks_classes(self.call.model)
        returned = self.recorder.returned
        plain = returned is not None and torch.equal(returned, self.output.detach())
        return lacks_classes(self.layout.model) if plain else None

    def stages(self) -> tuple[StageRecord, ...]:
        """The records of all stages, with the branches of the requested ones."""
        return tuple(self._stage(index) for index in range(len(self.recorder.stages)))

    def pooling(self) -> AttentionRecord | None:
        """The record of a pooling head."""
        notes = self.recorder.pooling
        return None if notes is None else notes.record(-1, self._around(len(self.grids) - 1))

    def readout(self, pooling: AttentionRecord | None) -> torch.Tensor:
        """The weights that average the final tokens into the classified vector, ``(B, n)``, or the head's queries."""
        layout, final = self.layout, self.streams[-1]
        if pooling is not None and layout.pooling is not None:
            weights = layout.pooling.rows(pooling.attention.queries)
        elif layout.per_position:
            weights = layout.read_by(self.call.target.positions(self.output.detach()), self.grids[-1])
        else:
            assert self.recorder.entry.inputs is not None
            weights = layout.readout_of(self.recorder.entry.inputs, final.shape[1])
            if layout.votes is not None and self.wanted.early is None:
                weights = self._with_votes(weights.expand(len(final), -1), layout.votes[1])
        return weights.to(device=final.device, dtype=widen(final).dtype).expand(final.shape[0], -1)

    def _with_votes(self, weights: torch.Tensor, weight: float) -> torch.Tensor:
        """The read-out with the token that has the largest value of the explained class."""
        votes, output = self.recorder.pooled["votes"], self.output.detach()
        if votes.shape[-1] != output.shape[-1]:
            raise UnsupportedModelError(
                f"The output has {output.shape[-1]} classes, but each token of {type(self.layout.model).__name__} has "
                f"{votes.shape[-1]}: it is not known which token is read. Explain the model itself."
            )
        best = self.call.target.largest(votes, output).to(weights)
        others = weights.new_zeros(len(best), weights.shape[1] - best.shape[1])
        return (weights + weight * torch.cat([others, best], 1)) / (1 + weight)

    def reached(self) -> torch.Tensor | None:
        """Which final tokens the output depends on, ``(B, n)``; None in a pass without gradients.

        None, too, if tokens vote: those with the largest values of other classes are reached by a probability.
        """
        gradients = self.recorder.final.gradients if self.layout.votes is None else []
        return (self.layout.final_stream.tokens(gradients[0]) != 0).any(-1) if gradients else None

    def _stage(self, index: int) -> StageRecord:
        notes, stream, grid = self.recorder.stages[index], self.streams[index], self.grids[index]
        branches = notes.branches if index in self._chosen else []
        merging = None if notes.merging is None else notes.merging.record(stream, grid)
        around = self._around(index, merging)
        return StageRecord(
            notes.stage,
            self.grids[index + 1],
            stream,
            self.streams[index + 1],
            tuple(_branch(branch, notes, around) for branch in branches),
            notes.summed,
            merging,
            self._stream_gradient(index + 1),
            self._stream_gradient(index),
        )

    def _stream_gradient(self, index: int) -> torch.Tensor | None:
        notes = self.recorder.stream(index)
        return notes.tap.tokens(notes.gradients[-1]) if notes.gradients and self.wanted.streams else None

    def _around(self, index: int, merging: MergingRecord | None = None) -> Around:
        """The streams before and after a stage; twice the last one for a pooling head."""
        following = min(index + 1, len(self.grids) - 1)
        return Around(self.streams[index], self.grids[index], self.streams[following], self.grids[following], merging)

    def _slopes(self) -> list[StreamNotes]:
        """The residual streams whose gradients are requested."""
        stages, starts = self.layout.stages, dict[int, int]()
        branching = [index for index in self._chosen if stages[index].branches]  # a later merging is not of the block
        if self.wanted.streams is None:
            return []
        if self.wanted.streams == "stages":
            return [self.recorder.stream(index + 1) for index in branching]
        for index in branching:
            starts.setdefault(stages[index].block, index)
        ends = block_ends(self.layout, self._chosen)
        return [self.recorder.stream(index) for index in sorted({*starts.values(), *ends.values()})]

    def _seen_streams(self) -> list[torch.Tensor]:
        streams: list[torch.Tensor] = []
        for index in range(len(self.layout.stages) + 1):
            stream = self.recorder.stream(index)
            check_called_once(self.layout.model, stream.times)
            if stream.seen is None:
                raise UnsupportedModelError(f"The residual stream before stage {index} was not seen in the pass.")
            tokens = stream.tap.tokens(stream.seen.detach())
            if index < len(self.layout.stages) and self.layout.stages[index].leading:
                rest = self.recorder.stages[index].rest
                tokens = torch.cat([tokens, streams[-1][:, tokens.shape[1] :] if rest is None else rest], 1)
            streams.append(tokens)
        return streams

    def _geometry(self) -> tuple[tuple[int, int], list[Grid]]:
        layout, size, (batch, tokens, _) = self.layout, self.recorder.entry.size, self.streams[0].shape
        model = type(layout.model).__name__
        if self.wanted.early is not None and len(self.output) != batch * self._readings:
            raise RuntimeError(f"{model} returned {len(self.output)} rows for {batch} images of each early block.")
        check_batch(layout.model, batch, len(self.output) // self._readings)
        if size is None:
            kind = {2: "token ids (B, n)", 3: "patches (B, n, ...)"}.get(layout.dimensions[0], "an image (B, C, H, W)")
            raise UnsupportedModelError(f"{model} did not receive {kind}.")
        grids = layout.grids(*size)
        if grids[0][0] * grids[0][1] + layout.num_prefix_tokens != tokens:
            raise UnsupportedModelError(
                f"An image of {size[0]} x {size[1]} should give {grids[0][0]} x {grids[0][1]} patches and "
                f"{layout.num_prefix_tokens} prefix tokens, but {tokens} tokens were seen. Is patch dropout on? "
                f"Call model.eval()."
            )
        return size, grids


def _branch(
    branch: AttentionNotes | FeedForwardNotes, notes: StageNotes, around: Around
) -> AttentionRecord | FeedForwardRecord:
    if isinstance(branch, FeedForwardNotes):
        return branch.record(around)
    return branch.record(notes.stage.block, around)
