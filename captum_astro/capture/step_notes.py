"""What the recorder notes of linear steps and of changes of resolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from captum_astro.capture.affine import Statistics, activation_factors, compose, inverse_deviation
from captum_astro.capture.merging_record import MergingRecord
from captum_astro.capture.records import spots
from captum_astro.functional.attention import widen
from captum_astro.functional.token_map import Grid, TokenMap
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Activation, Measured, Modulated, Norm, Step, Tap
from captum_astro.layouts.structure import Merging, Rearrange


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
        self.measured = [step for step in steps if isinstance(step, Norm | Modulated | Activation)]
        self._found: list[torch.Tensor | Measured | None] = [None] * len(self.measured)

    def note(self, number: int, x: torch.Tensor) -> None:
        """Measure the input of one of `measured`."""
        step, x = self.measured[number], x.detach()
        if isinstance(step, Modulated):
            self._found[number] = step.measure(x)
        elif isinstance(step, Activation):
            found = activation_factors(step.module, widen(x))
            self._found[number] = Tap(step.module, channels=step.channels).tokens(found)[..., : step.first]
        else:
            found = inverse_deviation(step.module, x if step.channels == "last" else x.movedim(1, -1))
            self._found[number] = found if step.per_head else found.reshape(len(x), -1)

    def statistics(self, outputs: TokenMap | None, name: str) -> Statistics:
        """All statistics, those of whole images split into the branch's windows."""
        found: list[torch.Tensor | Measured] = []
        for step, one in zip(self.measured, self._found, strict=True):
            if one is None:
                raise UnsupportedModelError(f"{type(step.module).__name__} of {name} did not run in the pass.")
            windowed = outputs is not None and isinstance(step, Norm | Activation) and step.after_windows
            found.append(outputs.gather(one) if windowed and outputs and isinstance(one, torch.Tensor) else one)
        return tuple(found)


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
        check_size(tokens, residual, self.merging.name)
        like = residual.new_empty(0, tokens.index.shape[2], 0, residual.shape[2])
        made, statistics = self.merging, self.steps.statistics(None, self.merging.name)
        heads = next((x.shape[1] for x in statistics if isinstance(x, torch.Tensor) and x.ndim == 3), None)
        map_out = compose(made.steps, statistics, like, heads)
        return MergingRecord(
            tokens,
            residual,
            map_out,
            self._merged,
            made.maximum,
            made.averaged,
            made.joined,
            made.shared,
            made.replaced,
        )


def placed(way: Rearrange | None, grid: Grid, residual: torch.Tensor) -> TokenMap | None:
    """A token map for the tokens of a residual stream, on their device; None for all tokens in order."""
    if way is None:
        return None
    tokens = way(grid).to(residual.device)
    check_size(tokens, residual, "A token map")
    return tokens


def check_size(tokens: TokenMap, residual: torch.Tensor, name: str) -> None:
    """Reject a token map for another number of tokens."""
    if tokens.tokens != residual.shape[1]:
        raise UnsupportedModelError(
            f"{name} is for {tokens.tokens} tokens, but the residual stream there has {residual.shape[1]}. Does the "
            f"model accept images of this size?"
        )
