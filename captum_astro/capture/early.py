"""Reading the tokens of an earlier block as if they were the final ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap


@dataclass(frozen=True)
class Early:
    """The outputs of blocks, stacked along the batch, to be read by the model's own norm, pooling and head.

    Attributes:
        blocks: The indices of the blocks.
        averaged: The head reads the mean of all tokens, or of the normalised ones, in place of each of them. A pooling
            head reads the tokens.
    """

    blocks: tuple[int, ...]
    averaged: Literal["tokens", "normalised"] | None = None

    def given(self, layout: Layout, tokens: torch.Tensor) -> torch.Tensor:
        """What the rest of the model gets: the tokens, or their mean in place of each."""
        if self.averaged != "tokens" or layout.pooling is not None:
            return tokens.clone()  # what follows may change it in place
        return mean_in_place(layout.final_stream, tokens)


def as_final(layout: Layout, block: int, seen: torch.Tensor, tap: Tap, final: torch.Tensor) -> torch.Tensor:
    """The output of a block, in the form of the final tokens.

    Args:
        layout: The model's.
        block: The index of the block.
        seen: The tensor at its output.
        tap: Where it was read.
        final: The tensor of the final tokens, which may be arranged otherwise.

    Raises:
        UnsupportedModelError: If it has another form.
    """
    if seen is final:
        return seen
    read, tokens = layout.final_stream, tap.tokens(seen)
    first = tokens.transpose(1, 2) if read.channels == "first" and final.ndim == 4 else tokens
    forms = [x.reshape(final.shape) for x in (seen, first) if x.numel() == final.numel()]
    for form in forms:
        found = read.tokens(form)
        if found.shape == tokens.shape and torch.equal(found, tokens):
            return form
    raise UnsupportedModelError(
        f"The head of {type(layout.model).__name__} reads {tuple(read.tokens(final).shape[1:])} tokens and "
        f"channels; those of block {block} are {tuple(tokens.shape[1:])}, which it cannot read. Choose later "
        f"blocks by layers=."
    )


def mean_in_place(tap: Tap, tokens: torch.Tensor) -> torch.Tensor:
    """The mean of a tap's tokens in the place of each."""
    first = tap.channels == "first" and tokens.ndim == 4
    places = (2, 3) if first else tuple(range(1, tokens.ndim - 1))
    return tokens.mean(places, keepdim=True).expand_as(tokens).clone()


def block_ends(layout: Layout, chosen: list[int]) -> dict[int, int]:
    """For each block among some stages, the index of the stream that leaves it; a later merging is not part of it."""
    stages = layout.stages
    return {stages[i].block: i + 1 for i in chosen if stages[i].branches}
