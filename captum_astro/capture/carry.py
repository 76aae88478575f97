"""Propagation of a row back through the layers of a pass."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, Pass, StageRecord


class Update(ABC):
    """A method's update for each layer: a row times the layer's matrix.

    The tokens are the last dimension of a row: ``(B, n)``, or ``(B, m, n)`` for several rows. If a layer works on
    windows, every window is a sample, and `carry` splits the row into windows and merges it again.

    Attributes:
        reads_pooling: For `carry_last`: a pooling head counts as the last attention layer; otherwise the row passes
            through it.
        merges_by_length: Where tokens become fewer (at a change of resolution, in reduced keys), each source gets a
            share in proportion to the length of its contribution; otherwise all sources of one get the same share.
        by_place: Rows are sums over layers and not products, so that they pass on by place where branches replace the
            stream.
    """

    reads_pooling: bool = True
    merges_by_length: bool = False
    by_place: bool = False

    @abstractmethod
    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        """Rows over the queries times the matrix of one attention layer, without the identity: rows over the keys."""

    def feed_forward(self, row: torch.Tensor, record: FeedForwardRecord) -> torch.Tensor | None:
        """A row times the matrix of a feed-forward layer, without the identity; None if it has no update."""
        return None

    def entering(self, row: torch.Tensor, record: StageRecord) -> torch.Tensor:
        """The row before it is multiplied by a stage's matrix, for methods that modify it."""
        return row

    def passing(self, row: torch.Tensor, record: StageRecord) -> torch.Tensor:
        """What passes a stage along the residual connection: all of the row, except for methods that weight it."""
        return row

    def branching(self, row: torch.Tensor, record: StageRecord) -> torch.Tensor:
        """The row as it enters a stage's branches, not its shortcut, for methods that weigh the one by the other."""
        return row

    def finish(self, row: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
        """The result, from the row over the tokens that enter the first stage and their stream ``(B, n, d)``."""
        return row


def carry(passed: Pass, update: Update, start: torch.Tensor | None = None) -> torch.Tensor:
    """The read-out row of the product of all updates, ``r U_L ... U_2 U_1``, from the last layer to the first.

    For each stage, ``row = row (shortcut + sum of its branches)``; a pooling head comes first, without a shortcut.
    Where branches replace the stream, each row of their sum is divided by its own sum.

    Args:
        passed: The recorded pass.
        update: The method.
        start: Rows over the final tokens, ``(B, ..., n)``, instead of the read-out.

    Returns:
        A row over the tokens that enter the first stage, ``(B, ..., n)``.
    """
    row = _start(passed, update) if start is None else start
    for stage in reversed(passed.stages):
        row = update.entering(row, stage)
        if stage.branches and not stage.keeps and not update.by_place:
            row = _replaced(row, stage, update)
            continue
        added = _added(row, stage, update)
        row = _shortcut(update.passing(row, stage), stage, update)
        row = row if added is None else row + added
    return update.finish(row, passed.stages[0].stream)


def carry_last(passed: Pass, update: Update) -> torch.Tensor:
    """The read-out row of the last attention layer's map only, at the tokens that enter the first stage.

    Args:
        passed: The recorded pass.
        update: The method.

    Returns:
        ``(B, ..., n)``.
    """
    row = _start(passed, update)
    read = passed.pooling is not None and update.reads_pooling
    for stage in reversed(passed.stages):
        if stage.attentions and not read:
            row, read = torch.stack([through(row, branch, update) for branch in stage.attentions]).sum(0), True
        else:
            row = _shortcut(row, stage, update)
    return update.finish(row, passed.stages[0].stream)


def _start(passed: Pass, update: Update) -> torch.Tensor:
    return passed.readout if passed.pooling is None else through(passed.readout, passed.pooling, update)


def _added(row: torch.Tensor, stage: StageRecord, update: Update) -> torch.Tensor | None:
    """A row times the matrices of a stage's branches, summed; None if there is none."""
    total: torch.Tensor | None = None
    row = update.branching(row, stage)
    for branch in stage.branches:
        if isinstance(branch, AttentionRecord):
            found: torch.Tensor | None = through(row, branch, update)
        else:
            found = _through_some(row, branch, update)
        if found is not None:
            total = found if total is None else total + found
    return total


def _replaced(row: torch.Tensor, stage: StageRecord, update: Update) -> torch.Tensor:
    """A row where branches replace the stream: the terms of each new token as shares, as at any change of resolution.

    A new token without a positive term has no source.
    """
    batch, tokens = row.shape[0], row.shape[-1]
    terms = _added(torch.eye(tokens, dtype=row.dtype, device=row.device).expand(batch, -1, -1), stage, update)
    assert terms is not None
    total = terms.sum(-1, keepdim=True)
    shares = torch.where(total > 0, terms / total, torch.zeros_like(terms))
    return torch.einsum("b...t,bts->b...s", row, shares)


def through(row: torch.Tensor, record: AttentionRecord, update: Update) -> torch.Tensor:
    """Rows over all tokens, or over a pooling head's queries, times the matrix of one attention layer.

    Args:
        row: ``(B, ..., n)``; split into windows where the layer has them.
        record: The layer.
        update: The method.

    Returns:
        A row over the tokens that are its keys, ``(B, ..., n)``.
    """
    inside = row if record.outputs is None else record.outputs.gather_row(row)
    found, keys = update.attention(inside, record), record.keys(update.merges_by_length)
    return found if keys is None else keys.scatter(found)


def _through_some(row: torch.Tensor, record: FeedForwardRecord, update: Update) -> torch.Tensor | None:
    """A row over all tokens times the matrix of one feed-forward layer, which may change or read some tokens only."""
    found = update.feed_forward(row if record.outputs is None else record.outputs.gather_row(row), record)
    if found is None:
        return None
    if record.sources is not None:
        return record.sources.ways(update.merges_by_length).scatter(found)
    return found if record.outputs is None else record.outputs.scatter(found)


def _shortcut(row: torch.Tensor, stage: StageRecord, update: Update) -> torch.Tensor:
    if stage.merging is None:
        return row
    return stage.merging.ways(update.merges_by_length).scatter(row)
