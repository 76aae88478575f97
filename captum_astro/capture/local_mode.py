"""A mode in which a model computes each place of the image by itself, as far as its code allows."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_T = torch.Tensor
_AVERAGE = (torch.mean, _T.mean, torch.var, _T.var, torch.std, _T.std, torch.norm, _T.norm)
_PRODUCT = (torch.matmul, _T.matmul, _T.__matmul__)
_SOFTMAX = (torch.softmax, _T.softmax, F.softmax)
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)
_CHANGE = 0.1  # of attention by its queries, so that rounding does not hide it


class LocalMode(TorchFunctionMode):
    """What belongs to one place depends on nothing else, or on the rest of the first image only.

    - Attention among the same tokens is the identity.
    - Other attention stands at its queries: keys and values are those of the first image, for every image.
    - So are averages over all places, as in gates and in norms of whole images.

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
        if func is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
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
        if func is F.group_norm:
            return self._group_norm(*args, **kwargs)
        found = func(*args, **kwargs)
        return self._first(found) if self._is_average(func, found, args, kwargs) else found

    def _multi_head(self, *args: Any, **kwargs: Any) -> Any:
        """PyTorch's whole attention, of tokens ``(n, B, d)``; what it calls cannot be seen."""
        call = _MULTI_HEAD.bind(*args, **kwargs)
        given = call.arguments
        query, key, value = (given[name] for name in ("query", "key", "value"))
        if len(query) == len(key):
            itself = ~torch.eye(len(query), dtype=torch.bool, device=query.device)
            given |= {"attn_mask": itself, "bias_k": None, "bias_v": None, "add_zero_attn": False}
        else:
            first = (self._first(x.transpose(0, 1)).transpose(0, 1) for x in (key, value))
            given["key"], given["value"] = first
        given |= {"key_padding_mask": None, "is_causal": False}
        return F.multi_head_attention_forward(*call.args, **call.kwargs)

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

    def _group_norm(
        self,
        x: torch.Tensor,
        num_groups: int,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        """`F.group_norm`, with the mean and deviation of the first image."""
        groups = x.reshape(len(x), num_groups, -1)
        var, mean = torch.var_mean(self._first(groups), -1, unbiased=False, keepdim=True)
        normed = ((groups - mean) / (var + eps).sqrt()).reshape(x.shape)
        factor, shift = (one if one is None else one.reshape(-1, *[1] * (x.ndim - 2)) for one in (weight, bias))
        normed = normed if factor is None else normed * factor
        return normed if shift is None else normed + shift

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
        return isinstance(dims, tuple | list) and len(dims) >= 2 and args[0].ndim >= 4


def _dim(args: Any, kwargs: Any) -> Any:
    return kwargs.get("dim", args[1] if len(args) > 1 else None)


def _to_all_heads(value: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """The values ``(..., n, d)``, repeated where several heads share them."""
    if query.ndim > 3:
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    return value.expand(*query.shape[:-1], -1).clone()
