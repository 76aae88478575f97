"""The backward pass: the gradients of the explained output at what a recorder has noted."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from captum_astro.capture.attention_notes import AttentionNotes
from captum_astro.capture.call import Call, no_gradient
from captum_astro.capture.early import block_ends
from captum_astro.capture.notes import StreamNotes
from captum_astro.capture.recorder import Recorder
from captum_astro.capture.target import LargestOutput, Seed
from captum_astro.capture.wanted import Wanted
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError

# a tensor whose gradient is wanted, and where it goes
Asked = tuple[torch.Tensor, list[torch.Tensor]]


class Backward:
    """Writes gradients into the notes of a recorder.

    Args:
        call: The model, its inputs, and the target of each row of the output.
        wanted: Which gradients.
        recorder: The recorder after the forward pass.
        output: The output of the model.
    """

    def __init__(self, call: Call, wanted: Wanted, recorder: Recorder, output: torch.Tensor) -> None:
        assert call.layout is not None
        self._call, self._wanted, self._recorder, self._output = call, wanted, recorder, output
        self._layout: Layout = call.layout
        self._chosen = wanted.stages(self._layout)
        self._heads = recorder.attentions(self._chosen)

    def run(self, image: torch.Tensor | None = None) -> None:
        """Note the gradients at the final stream, the heads' outputs, and, if requested, the blocks' outputs.

        The final stream is cut off the graph, so that first only the head is passed, and it is seen whether the output
        depends on anything else.

        Args:
            image: An image with its graph, which the output may not depend on otherwise.

        Raises:
            UnsupportedModelError: If one of them does not arrive.
        """
        output, recorder, plain = self._output, self._recorder, self._wanted.rules is None
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
        parts = read.chunk(self._wanted.readings) if self._wanted.gradient else ()
        for number, (tokens, layers, part) in enumerate(zip(recorder.behind, self._layers(), parts, strict=False)):
            if layers:
                slopes = torch.autograd.grad(tokens, [x for x, _ in layers], part, allow_unused=True)
                self._keep([g for _, g in layers], slopes, seed.part(number, len(output) // self._wanted.readings))
        for notes in self._heads if self._wanted.gradient else ():
            if not notes.gradients and self._wanted.cut:
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
        if self._wanted.early is None:
            heads = self._asked([notes for notes in self._heads if notes is not self._recorder.pooling])
            streams = ((x, notes.gradients) for notes in self._slopes() if (x := notes.seen) is not None)
            return [[*heads, *((x, gradients) for x, gradients in streams if x.requires_grad)]]
        own: dict[int, list[AttentionNotes]] = {block: [] for block in self._wanted.early.blocks}
        for notes in (self._recorder.stages[index] for index in self._chosen):
            own[notes.stage.block] += notes.attentions
        return [self._asked(heads) for heads in own.values()]

    def _keep(self, where: Sequence[list[torch.Tensor]], found: Sequence[torch.Tensor | None], seed: Seed) -> None:
        """Keep the gradients that arrive, without the seed's scaling."""
        for gradients, gradient in zip(where, found, strict=True):
            if gradient is not None:
                gradients.append(seed.scaled(gradient) if self._wanted.rules is None else gradient)

    def _seed(self) -> Seed:
        """The start of the backward pass; without a target, numbers that do not cancel."""
        output, target = self._output, self._call.target
        if self._wanted.gradient or self._layout.per_position or isinstance(target, LargestOutput):
            return target.seed(output)
        start = torch.rand(output.shape, generator=torch.Generator().manual_seed(0)) + 0.5
        return Seed(start.to(output), output.new_ones(len(output)))

    def _asked(self, heads: list[AttentionNotes]) -> list[Asked]:
        """The heads' outputs whose gradients are needed, and where they go."""
        plain = self._wanted.rules is None
        # differential attention adds its first map with factor 1, so its gradient suffices
        return [
            (x, notes.gradients)
            for notes in heads
            for x in (notes.outputs[: notes.branch.calls] if plain else notes.outputs)
        ]

    def _check_read(self, read: torch.Tensor | None, around: Sequence[torch.Tensor | None]) -> None:
        model = type(self._layout.model).__name__
        if read is None:
            raise UnsupportedModelError(f"The output does not depend on the final tokens of {model}.")
        if any(gradient is not None for gradient in around):
            raise UnsupportedModelError(
                f"The output depends on more than the final tokens of {model}, as with a head on an earlier layer, "
                f"whose share a map would leave out. AttnLRP, ConservativeLRP and LRP follow any head."
            )

    def _slopes(self) -> list[StreamNotes]:
        """The residual streams whose gradients are requested."""
        stages, starts = self._layout.stages, dict[int, int]()
        branching = [index for index in self._chosen if stages[index].branches]  # a later merging is not of the block
        if self._wanted.streams is None:
            return []
        if self._wanted.streams == "stages":
            return [self._recorder.stream(index + 1) for index in branching]
        for index in branching:
            starts.setdefault(stages[index].block, index)
        ends = block_ends(self._layout, self._chosen)
        return [self._recorder.stream(index) for index in sorted({*starts.values(), *ends.values()})]
