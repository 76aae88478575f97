"""A mode in which a model computes each place of the image by itself, as far as its code allows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_AVERAGE = (torch.mean, torch.Tensor.mean)
_PRODUCT = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
_SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)
_CHANGE = 0.1  # of attention by its queries, so that rounding does not hide it


class LocalMode(TorchFunctionMode):
    """What belongs to one place depends on nothing else, or on the rest of the first image only.

    - Attention among the same tokens is the identity.
    - Other attention stands at its queries: keys and values are those of the first image, for every image.
    - So are averages over all places, as in gates.

    Args:
        images: The size of the batch.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self._images = images
        self._attention: torch.Tensor | None = None  # the latest
        self._identity = False  # whether it is among the same tokens

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:  # it calls what follows
            with self:
                return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            names = [name for name in ("query", "key", "value") if name in kwargs]
            query, key, value = (*args, *(kwargs.pop(name) for name in names))[:3]
            if query.shape[-2] == key.shape[-2]:
                return _to_all_heads(value, query)
            return func(query, self._first(key), self._first(value), *args[3:], **kwargs)
        if func in _SOFTMAX and args[0].ndim > 2 and _dim(args, kwargs) in (-1, args[0].ndim - 1):
            return self._softmax(args[0])
        if func in _PRODUCT and args[0].ndim == args[1].ndim > 2:
            return func(*self._factors(*args[:2]))
        found = func(*args, **kwargs)
        return self._first(found) if self._is_average(func, found, args, kwargs) else found

    def _softmax(self, x: torch.Tensor) -> torch.Tensor:
        first, self._identity = self._first(x), x.shape[-1] == x.shape[-2]
        if self._identity:
            self._attention = torch.eye(x.shape[-1]).to(x).expand_as(x).clone()
        else:
            change = x - first
            self._attention = (
                first + _CHANGE / change.abs().amax().clamp_min(torch.finfo(x.dtype).tiny) * change
            ).softmax(-1)
        return self._attention

    def _factors(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors of a product: queries and keys, or attention and values in either order."""
        if self._is_attention(left) or self._is_attention(right):
            if self._identity:
                return left, right
            return (left, self._first(right)) if self._is_attention(left) else (self._first(left), right)
        return left, self._first(right)

    def _is_attention(self, x: torch.Tensor) -> bool:
        latest = self._attention
        return latest is not None and x.untyped_storage().data_ptr() == latest.untyped_storage().data_ptr()

    def _first(self, x: torch.Tensor) -> torch.Tensor:
        """The first image's values for every image; there may be several samples of an image, as with windows."""
        if len(x) % self._images:
            return x
        parts = x.reshape(self._images, -1, *x.shape[1:])
        return parts[:1].expand_as(parts).reshape(x.shape).clone()

    def _is_average(self, func: Any, found: Any, args: Any, kwargs: Any) -> bool:
        if func is F.adaptive_avg_pool2d:
            return tuple(found.shape[-2:]) == (1, 1)
        dims = _dim(args, kwargs) if func in _AVERAGE else None
        return isinstance(dims, tuple | list) and len(dims) == 2 and bool(args[0].ndim == 4)


def _dim(args: Any, kwargs: Any) -> Any:
    return kwargs.get("dim", args[1] if len(args) > 1 else None)


def _to_all_heads(value: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """The values ``(..., n, d)``, repeated where several heads share them."""
    if query.ndim > 3:
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    return value.expand(*query.shape[:-1], -1).clone()
