"""What the recorder notes of one attention layer."""

from __future__ import annotations

import torch

from captum_astro.capture.affine import inverse_deviation
from captum_astro.capture.records import AttentionRecord, spots
from captum_astro.capture.step_notes import Around, MergingNotes, StepNotes, placed
from captum_astro.capture.windows import as_samples, recorded_as_samples, recorded_with_heads
from captum_astro.functional.attention import Attention, AttentionMap, widen
from captum_astro.functional.operations import Recorded
from captum_astro.functional.token_map import TokenMap
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import (
    AttentionBranch,
    Measured,
    Tap,
)


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
        self._value_scale: torch.Tensor | None = None
        self._gate: torch.Tensor | None = None
        self.reduced = None if branch.reduced is None else MergingNotes(branch.reduced)

    def note(self, recorded: Recorded, output: torch.Tensor) -> None:
        """One call of an attention function inside the branch."""
        windows, folded = self.branch.windows, self.branch.folded
        dimensions = 4 + (windows is not None) - (folded is not None)
        if output.ndim != dimensions or recorded.value.ndim != dimensions:
            return
        if windows is not None:
            recorded = recorded_as_samples(recorded, windows, self.branch.name)
        if folded is not None:
            recorded = recorded_with_heads(recorded, folded)
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
        outputs = placed(branch.outputs, around.next_grid, around.after)
        sources = placed(branch.sources, around.grid, residual)
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
            self._value_scale,
            outputs,
            sources if reduced is None else reduced.tokens,
            reduced,
            around.merging,
            residual.shape[1] - around.grid[0] * around.grid[1],
            None if self._gate is None else self._gate.unflatten(2, (value.shape[1], -1)).transpose(1, 2),
        )

    def _as_heads(self, output: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The heads' outputs ``(B, H, q, d_v)``, split further if there is a map per channel."""
        output = widen(output if self.branch.windows is None else as_samples(output, self.branch.windows))
        if self.branch.folded is not None:
            output = output.unflatten(0, (-1, self.branch.folded))
        return output if output.shape[1] == value.shape[1] else output.transpose(-2, -1).flatten(1, 2)[..., None]


def _places(tokens: torch.Tensor | None, sources: TokenMap | None) -> torch.Tensor | None:
    """Of whole images, those tokens of every window that are compared; without windows, they were chosen before."""
    if tokens is None or sources is None:
        return tokens
    return sources.only(spots(sources.index.shape[1])).gather(tokens)
