"""The walker of the methods that carry one row back through the attention layers."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F

from captum_astro.attr._base import TokenWalker
from captum_astro.capture.records import AttentionRecord, StageRecord


class RowWalker(TokenWalker):
    """A row ``(B, n)`` that starts at the read-out: ``r <- r (I + sum over the attention layers of a stage)``.

    Feed-forward layers leave it as it is. A pooling head is the first map, without the identity.
    """

    def __init__(self) -> None:
        self.row = torch.empty(0)

    def begin(self, readout: torch.Tensor, pooling: AttentionRecord | None) -> None:
        """Start from the read-out."""
        self.row = readout if pooling is None else F.pad(self.update(readout, pooling), (pooling.first_key, 0))

    def step(self, record: StageRecord) -> None:
        """Multiply by the stage's map."""
        updates = [self.update(self.row, branch) for branch in record.branches if isinstance(branch, AttentionRecord)]
        for update in updates:
            self.row = self.row + update

    def end(self, stream: torch.Tensor) -> None:
        """The row is the result."""
        self.tokens = self.row

    @abstractmethod
    def update(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        """A row ``(B, q)`` times one attention layer's map without its identity: ``(B, n)``."""


class LastLayerWalker(RowWalker):
    """Only the last attention layer counts, or the pooling head where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self._done = False

    def begin(self, readout: torch.Tensor, pooling: AttentionRecord | None) -> None:
        """A pooling head is the last attention layer."""
        super().begin(readout, pooling)
        self._done = pooling is not None

    def step(self, record: StageRecord) -> None:
        """Read the first attention layer that comes, which is the last one of the model."""
        updates = [self.update(self.row, branch) for branch in record.branches if isinstance(branch, AttentionRecord)]
        if updates and not self._done:
            self.row, self._done = torch.stack(updates).sum(0), True
