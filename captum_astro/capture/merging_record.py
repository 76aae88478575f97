"""What is recorded where tokens are merged: a change of resolution, or the reduction to fewer keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from captum_astro.capture.affine import AffineMap
from captum_astro.functional.attention import widen
from captum_astro.functional.token_map import TokenMap


@dataclass(frozen=True, eq=False)
class MergingRecord:
    """One change of resolution of one pass: each new token is a sum of its sources' contributions and a constant.

    Attributes:
        tokens: Which old tokens each new one is made of.
        residual: The residual stream before it, ``(B, n, d)``, or what a norm of each token makes of it.
        map_out: From the concatenated sources of a new token to that token.
        merged: A few of the new keys of an attention, ``(B, 3, d)``, those of `spots`.
        maximum: The new token is the maximum of its sources, channel by channel.
        averaged: Behind the maximum stands the average.
        joined: The first new tokens ``(1, m, d)``, which are made of no old ones.
        shared: No linear map leads to it: its sources get equal shares, and their contributions are not known.
        replaced: Nothing is kept of the old tokens; ``tokens`` says in whose places the new ones lie.
    """

    tokens: TokenMap
    residual: torch.Tensor
    map_out: AffineMap
    merged: torch.Tensor | None = None
    maximum: bool = False
    averaged: bool = False
    joined: torch.Tensor | None = None
    shared: bool = False
    replaced: bool = False

    def contributions(self, targets: slice | list[int] = slice(None)) -> torch.Tensor:
        """The contribution of each source to some of the new tokens: ``(B, targets, k, d)``, of the new width."""
        return self._contributions(targets, self.map_out.query_scale)

    def _contributions(self, targets: slice | list[int], scale: torch.Tensor | None) -> torch.Tensor:
        """The same with a norm's factors of each head of the new tokens, which is made of that head of the old ones."""
        chosen = self.tokens if isinstance(targets, slice) else self.tokens.only(targets)
        sources = widen(chosen.gather_each(self.residual))
        if self.maximum:
            absent = (chosen.index < 0)[..., None]
            winners = sources.masked_fill(absent, -torch.inf).argmax(2, keepdim=True)
            won = torch.zeros_like(sources).scatter_(2, winners, sources.gather(2, winners))
            return torch.cat([won, sources / (~absent).sum(2, keepdim=True)], -1) if self.averaged else won
        if scale is not None:
            factors = scale[:, :, targets].transpose(1, 2)[:, :, None, :, None]
            sources = (sources.unflatten(-1, (scale.shape[1], -1)) * factors).flatten(-2)
        k, width = sources.shape[2:]
        if self.map_out.matrix is None:
            return sources
        return torch.einsum("btkc,kcd->btkd", sources, self.map_out.matrix.reshape(k, width, -1))

    def rebuilt(self, targets: slice | list[int] = slice(None)) -> torch.Tensor:
        """Some of the new tokens, directly from the definition: ``(B, targets, d)``."""
        total, constant = self.contributions(targets).sum(2), self.map_out.constant
        if self.joined is not None:
            new = self.tokens.index.shape[1] - self.joined.shape[1]
            total = total + F.pad(widen(self.joined.detach()), (0, 0, 0, new))[:, targets]
        if constant is None:
            return total
        return total + (constant[:, targets] if constant.ndim == 3 else constant)

    def given(self) -> torch.Tensor:
        """What each old token gives to a new one, as far as it is known without the others: ``(B, n, d)`` of its width.

        By a linear map, that is what it gives to one whose sources are all like it.
        """
        if self.averaged:
            return torch.cat([self.residual, self.residual / self.tokens.index.shape[2]], -1)
        if self.map_out.matrix is None:  # a maximum of the old tokens themselves
            return self.residual
        width = self.residual.shape[2]
        matrix: torch.Tensor = self.map_out.matrix.reshape(-1, width, self.map_out.matrix.shape[-1]).sum(0)
        return widen(self.residual) @ matrix

    def ways(self, by_length: bool) -> TokenMap:
        """The tokens, with the shares of `by_length` or with equal ones."""
        return self.by_length() if by_length and not self.replaced else self.tokens

    def by_length(self) -> TokenMap:
        """The share of each source, in proportion to the length of its contribution if that is known."""
        if self.shared:
            return self.tokens
        scale = self.map_out.query_scale
        one = scale is None or scale.shape[1] == 1  # a new token's own factor takes no part in its shares
        lengths = self._contributions(slice(None), None if one else scale).norm(dim=-1)
        total = lengths.sum(-1, keepdim=True)
        share = torch.where(total > 0, lengths / total, torch.zeros_like(lengths))
        return self.tokens.with_share(share[:, None])
