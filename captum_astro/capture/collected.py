"""The notes of one pass, and the records made from them."""

from __future__ import annotations

import torch

from captum_astro.capture.attention_notes import AttentionNotes
from captum_astro.capture.call import Call
from captum_astro.capture.entry import check_batch, check_called_once
from captum_astro.capture.features import is_of_huggingface, lacks_classes
from captum_astro.capture.merging_record import MergingRecord
from captum_astro.capture.notes import FeedForwardNotes, StageNotes
from captum_astro.capture.recorder import Recorder
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, StageRecord
from captum_astro.capture.step_notes import Around
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.attention import widen
from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError


class Collected:
    """The notes of a recorder, with their gradients once `Backward` has run.

    Args:
        call: The model, its inputs, and the target of each row of the output.
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
        self.call, self.wanted, self.recorder, self.output = call, wanted, recorder, output
        self.layout: Layout = call.layout
        self._chosen = wanted.stages(self.layout)
        self.streams = self._seen_streams()
        self.image_size, self.grids = self._geometry()
        for notes in recorder.attentions(self._chosen):
            notes.check()

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
            if self.output.ndim < 3:
                raise UnsupportedModelError(
                    f"{type(layout.model).__name__} has an output for each token, which something after it joins, and "
                    "what that reads is unknown. Explain the model itself with a target (token, output); TokenGradCAM "
                    "and AttnLRP work on the whole."
                )
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
        if self.wanted.early is not None and len(self.output) != batch * self.wanted.readings:
            raise RuntimeError(f"{model} returned {len(self.output)} rows for {batch} images of each early block.")
        check_batch(layout.model, batch, len(self.output) // self.wanted.readings)
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
