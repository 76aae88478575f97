"""Explicit attention, computed by a model as a softmax and a product instead of calling a fused function."""

from __future__ import annotations

from typing import Any

import torch

from captum_astro.capture.operations import DROPOUT, MATMUL, SOFTMAX
from captum_astro.functional.attention import Given
from captum_astro.functional.operations import Recorded

# operations that leave an attention map unchanged, except for its dtype and memory layout
_KEEPS = (*DROPOUT, torch.Tensor.to, torch.Tensor.type_as, torch.Tensor.contiguous, torch.Tensor.clone, torch.clone)


_SWAPS = (torch.Tensor.transpose, torch.transpose)


class WrittenOut:
    """Follows the result of a softmax until it is multiplied by the values.

    Args:
        scores: Keep what it is the softmax of, which takes as much memory as the map.

    Attributes:
        swapped: Whether the last attention was computed as ``V^T A^T``, so that its output is transposed.
    """

    def __init__(self, scores: bool = False) -> None:
        self.swapped, self._keeps_scores = False, scores
        self._scores: torch.Tensor | None = None
        self._map: torch.Tensor | None = None
        self._transposed: torch.Tensor | None = None

    def see(self, func: Any, args: Any, result: Any) -> Recorded | None:
        """Inspect one operation.

        Args:
            func: The function that was called.
            args: Its positional arguments.
            result: Its result.

        Returns:
            The attention, if this was its product with the values.
        """
        if func is torch.einsum:
            func, args = torch.matmul, args[1:]  # as a product of a map with values, which is checked later
        if func in SOFTMAX:
            self._map, self._transposed = result, None
            self._scores = args[0].detach().clone() if self._keeps_scores else None
        elif func in MATMUL and self._transposed is not None and len(args) > 1 and args[1] is self._transposed:
            attention, self._map, self._transposed, self.swapped = self._transposed, None, None, True
            return Recorded(self._given(attention.transpose(-2, -1)), args[0].detach().transpose(-2, -1))
        elif self._map is None or not args or args[0] is not self._map:
            return None
        elif func in MATMUL:
            found, self._map, self._transposed, self.swapped = self._given(self._map), None, None, False
            return Recorded(found, args[1].detach())
        elif func in _SWAPS and {x % result.ndim for x in args[1:3]} == {result.ndim - 2, result.ndim - 1}:
            self._transposed = result
        elif func in _KEEPS:
            self._map = result
        return None

    def _given(self, attention: torch.Tensor) -> Given:
        scores, self._scores = self._scores, None
        return Given(attention.detach(), scores)

    def follow(self, attention: torch.Tensor) -> None:
        """Follow a map that the model has changed after its softmax."""
        self._map, self._transposed, self._scores = attention, None, None

    def forget(self) -> None:
        """Ignore a softmax that runs outside the attention."""
        self._map = self._transposed = self._scores = None
