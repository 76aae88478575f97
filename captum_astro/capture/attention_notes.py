"""What the recorder notes of one attention layer."""

from __future__ import annotations

import torch

from captum_astro.capture.affine import inverse_deviation
from captum_astro.capture.records import AttentionRecord, spots
from captum_astro.capture.step_notes import Around, MergingNotes, StepNotes, placed
from captum_astro.capture.windows import as_heads, recorded_as_heads
from captum_astro.functional.attention import Attention, AttentionMap, Given, widen
from captum_astro.functional.operations import Recorded
from captum_astro.functional.token_map import TokenMap
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Measured, Tap
from captum_astro.layouts.structure import AttentionBranch


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
        self._value: list[torch.Tensor] = []
        self._constant: torch.Tensor | None = None
        self._read: torch.Tensor | None = None
        self._entered: torch.Tensor | None = None
        self._values: Measured | None = None
        self._added: torch.Tensor | None = None
        self._value_scale: torch.Tensor | None = None
        self._gate: torch.Tensor | None = None
        reduced = branch.reduced or branch.reduced_values
        self.reduced = None if reduced is None else MergingNotes(reduced)

    def note(self, recorded: Recorded, output: torch.Tensor) -> None:
        """One call of an attention function inside the branch."""
        found, heads = recorded_as_heads(recorded, self.branch), as_heads(output, self.branch)
        if found is None or heads is None:
            return
        value = found.value
        if value.shape[1] == 1:  # multi-query: all heads have the same values
            value = value.expand(-1, heads.shape[1], -1, -1)
        self.outputs.append(output)
        self._maps.append(found.map)
        self._value.append(value)
        self._constant = found.constant

    def note_read(self, x: torch.Tensor) -> None:
        """The input tokens of the value projection: a few of them are kept, or all until their windows are known."""
        x = (self.branch.reads or Tap(self.branch.module)).tokens(x.detach())
        if x.ndim == 3 and self.branch.value_weight is not None:
            self._read = x if self.branch.windows is not None else x[:, spots(x.shape[1])]

    def note_entering(self, x: torch.Tensor) -> None:
        """The tokens that enter the branch: a few of them are kept, or all until it is known which are in windows."""
        assert self.branch.entering is not None
        tokens = self.branch.entering.tokens(x.detach())
        self._entered = tokens[:, spots(tokens.shape[1])] if self.branch.sources is None else tokens

    def note_output(self, x: torch.Tensor) -> None:
        """What the branch adds to the stream."""
        assert self.branch.output is not None
        self._added = self.branch.output.tokens(x.detach().clone())  # the model may add to it in place

    def note_values(self, x: torch.Tensor) -> None:
        """The input of a modulated value projection."""
        assert self.branch.modulated_values is not None
        self._values = self.branch.modulated_values.measure(x.detach())

    def note_value_norm(self, x: torch.Tensor) -> None:
        """The values before they are normalised, ``(B, n, heads, d_v)``."""
        assert self.branch.value_norm is not None
        self._value_scale = inverse_deviation(self.branch.value_norm, x.detach()).transpose(1, 2)

    def note_gate(self, x: torch.Tensor) -> None:
        """The logits of a gate."""
        self._gate = widen(x.detach()).sigmoid()

    def check(self) -> None:
        """Check that the branch ran the attention that the layout describes.

        Raises:
            UnsupportedModelError: If it ran a different number of softmaxes.
        """
        branch, expected = self.branch, len(self.branch.weights()) * self.branch.calls
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
        branch, residual = self.branch, around.before
        value, maps = self._value[-1], tuple(self._maps)
        if branch.calls > 1:
            value, maps = (
                torch.cat(self._value, 1),
                (Given(torch.cat([found.rows(0, found.queries) for found in maps], 1)),),
            )
        outputs = placed(branch.outputs, around.next_grid, around.after)
        sources = placed(branch.sources, around.grid, residual)
        reduced = None if self.reduced is None else self.reduced.record(residual, around.grid)
        return AttentionRecord(
            branch,
            block,
            residual,
            Attention(maps, branch.weights(), value, self._constant),
            self._as_heads([output.detach() for output in self.outputs], value),
            tuple(_per_token(gradient, outputs) for gradient in self._as_heads(self.gradients, value)),
            self.steps.statistics(outputs, branch.name),
            self._read if branch.windows is None else _places(self._read, sources),
            _places(self._entered, sources),
            self._values,
            self._value_scale,
            outputs,
            sources if reduced is None else reduced.tokens,
            reduced,
            around.merging,
            residual.shape[1] - around.grid[0] * around.grid[1],
            self._added,
            None if self._gate is None else self._gate.unflatten(2, (value.shape[1], -1)).transpose(1, 2),
        )

    def _as_heads(self, given: list[torch.Tensor], value: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The heads' outputs ``(B, H, q, d_v)`` of each call, or of all, split further for a map per channel."""
        found = [x for one in given if (x := as_heads(one, self.branch)) is not None]
        found = [torch.cat(found, 1)] if self.branch.calls > 1 and found else found
        heads = value.shape[1]
        return tuple(x if x.shape[1] == heads else x.transpose(-2, -1).flatten(1, 2)[..., None] for x in found)


def _per_token(gradient: torch.Tensor, outputs: TokenMap | None) -> torch.Tensor:
    """The gradient at the heads' outputs for each token that gets them: an equal part where several do."""
    if outputs is None or outputs.share is None:
        return gradient
    each = outputs.share[0].sum(-1).to(gradient)  # (groups, q)
    return gradient / each.repeat(len(gradient) // len(each), 1)[:, None, :, None]


def _places(tokens: torch.Tensor | None, sources: TokenMap | None) -> torch.Tensor | None:
    """Of whole images, those tokens of every window that are compared; without windows, they were chosen before."""
    if tokens is None or sources is None:
        return tokens
    return sources.only(spots(sources.index.shape[1])).gather(tokens)
