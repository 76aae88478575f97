"""A mode in which a model computes each place of the image by itself, as far as its code allows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_MEAN = (torch.mean, torch.Tensor.mean)
_SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)


class LocalMode(TorchFunctionMode):
    """Tokens attend to themselves, where queries and keys are the same tokens, and averages are those of one image.

    Args:
        samples: The size of the batch, whose first image's averages over all places are those of every image.
    """

    def __init__(self, samples: int) -> None:
        super().__init__()
        self._samples = samples

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:  # it calls what follows
            with self:
                return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            query, key, value = (*args, *(kwargs[name] for name in ("query", "key", "value") if name in kwargs))[:3]
            if query.shape[-2] == key.shape[-2]:
                return _to_all_heads(value, query)
        if func in _SOFTMAX and _over_pairs(args[0], _dim(args, kwargs)):
            return torch.eye(args[0].shape[-1]).to(args[0]).expand_as(args[0]).clone()
        found = func(*args, **kwargs)
        if self._is_global_average(func, found, args, kwargs):
            return found[:1].expand_as(found).clone()
        return found

    def _is_global_average(self, func: Any, found: Any, args: Any, kwargs: Any) -> bool:
        if func is F.adaptive_avg_pool2d:
            return len(found) == self._samples and tuple(found.shape[-2:]) == (1, 1)
        dims = _dim(args, kwargs) if func in _MEAN else None
        two = isinstance(dims, tuple | list) and len(dims) == 2
        return two and args[0].ndim == 4 and len(found) == self._samples


def _dim(args: Any, kwargs: Any) -> Any:
    return kwargs.get("dim", args[1] if len(args) > 1 else None)


def _over_pairs(x: torch.Tensor, dim: Any) -> bool:
    """Whether a softmax may be that of an attention among the same tokens."""
    return x.ndim > 2 and x.shape[-1] == x.shape[-2] and dim in (-1, x.ndim - 1)


def _to_all_heads(value: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """The values ``(..., n, d)``, repeated where several heads share them."""
    if query.ndim > 3:
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    return value.expand(*query.shape[:-1], -1).clone()
