"""What to record of a pass."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from captum_astro.capture.early import Early
from captum_astro.capture.rules_mode import Rules
from captum_astro.layouts.base import Layout

# at the output of each block, or of each stage: each residual add
Streams = Literal["blocks", "stages"]


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

    @property
    def readings(self) -> int:
        """How many times the batch is read after the blocks: once, or once for each early block."""
        return 1 if self.early is None else len(self.early.blocks)

    def stages(self, layout: Layout) -> list[int]:
        """The indices of the stages whose branches are recorded."""
        return [i for i, stage in enumerate(layout.stages) if self.blocks is None or stage.block in self.blocks]
