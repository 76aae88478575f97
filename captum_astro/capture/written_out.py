"""Explicit attention, computed by a model as a softmax and a product instead of calling a fused function."""

from __future__ import annotations

from typing import Any

import torch

from captum_astro.capture.operations import DROPOUT, MATMUL, SOFTMAX
from captum_astro.functional.attention import Given
from captum_astro.functional.operations import Recorded

# operations that leave an attention map unchanged, except for its dtype and memory layout
_KEEPS = (*DROPOUT, torch.Tensor.to, torch.Tensor.type_as, torch.Tensor.contiguous, torch.Tensor.clone, torch.clone)


class WrittenOut:
    """Follows the result of a softmax until it is multiplied by the values."""

    def __init__(self) -> None:
        self._map: torch.Tensor | None = None
        self._turned = False

    def see(self, func: Any, args: Any, result: Any) -> Recorded | None:
        """Inspect one operation.

        Args:
            func: The function that was called.
            args: Its positional arguments.
            result: Its result.

        Returns:
            The attention, if this was its product with the values.
        """
        if func in SOFTMAX:
            self._map, self._turned = result, False
        elif self._map is None or not args:
            return None
        elif self._turned and func in MATMUL and args[1] is self._map:
            attention, self._map = Given(self._map.detach().transpose(-2, -1)), None
            return Recorded(attention, args[0].detach().transpose(-2, -1), turned=True)
        elif args[0] is not self._map:
            return None
        elif func is torch.Tensor.transpose and {x % result.ndim for x in args[1:]} == {
            result.ndim - 2,
            result.ndim - 1,
        }:
            self._map, self._turned = result, not self._turned
        elif func in MATMUL and not self._turned:
            attention, self._map = Given(self._map.detach()), None
            return Recorded(attention, args[1].detach())
        elif func in _KEEPS:
            self._map = result
        return None

    def follow(self, attention: torch.Tensor) -> None:
        """Follow a map that the model has changed after its softmax."""
        self._map, self._turned = attention, False

    def forget(self) -> None:
        """Ignore a softmax that runs outside the attention."""
        self._map = None
