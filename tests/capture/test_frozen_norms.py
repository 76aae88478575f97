"""Norms whose deviation is a constant: the same values, and the gradient of what is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from captum_astro.capture.frozen_norms import frozen

WEIGHT, BIAS = torch.rand(2, 6, dtype=torch.float64) + 0.5
CASES: dict[str, tuple[Callable[..., torch.Tensor], tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "layer norm": (F.layer_norm, ((6,), WEIGHT, BIAS, 1e-3), {}, (2, 4, 6)),
    "plain layer norm": (F.layer_norm, ((6,),), {}, (2, 4, 6)),
    "over two dimensions": (F.layer_norm, ([4, 6],), {"eps": 1e-2}, (2, 4, 6)),
    "torch's": (torch.layer_norm, ((6,), WEIGHT, BIAS), {}, (2, 4, 6)),
    "RMS norm": (F.rms_norm, ((6,),), {"weight": WEIGHT, "eps": 1e-3}, (2, 4, 6)),
    "RMS norm, its own eps": (F.rms_norm, ([6], WEIGHT), {}, (2, 4, 6)),
    "group norm": (F.group_norm, (3, WEIGHT, BIAS), {"eps": 1e-2}, (2, 6, 3, 3)),
    "torch's group norm": (torch.group_norm, (2, WEIGHT), {}, (2, 6, 5)),
    "unit length": (F.normalize, (), {"dim": -1}, (2, 4, 6)),
    "another length": (F.normalize, (1.0, 1), {}, (2, 4, 6)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_values_are_those_of_the_norm_and_the_deviation_has_no_gradient(case: str) -> None:
    func, args, kwargs, shape = CASES[case]
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found = frozen(func, x, *args, **kwargs)
    torch.testing.assert_close(found, func(x, *args, **kwargs))
    # what is left is affine: twice the step changes the values twice as much, as long as the deviation is held
    step, gradient = torch.randn_like(x), torch.randn_like(found)
    (slope,) = torch.autograd.grad(found, x, gradient)
    held = _with_deviation_of(x.detach(), func, args, kwargs)
    for size in (1.0, 2.0):
        change = ((held(x.detach() + size * step) - held(x.detach())) * gradient).sum()
        torch.testing.assert_close(change, size * (slope * step).sum())


def _with_deviation_of(
    x: torch.Tensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The norm of other values by the deviation of x, written out."""
    if func is F.normalize:
        p, dim = (*args, 2.0)[0], kwargs.get("dim", 1)
        length = x.norm(p, dim, keepdim=True)
        return lambda y: y / length
    names = ("num_groups", "weight", "bias", "eps") if "group" in func.__name__ else ("size", "weight", "bias", "eps")
    names = ("size", "weight", "eps") if func is F.rms_norm else names
    given = dict(zip(names, args, strict=False)) | kwargs
    weight, bias = given.get("weight"), given.get("bias")
    if "num_groups" in given:
        flat, each = (x.reshape(len(x), given["num_groups"], -1), (1, -1, *[1] * (x.ndim - 2)))
    else:
        flat, each = x.flatten(-len(given["size"])), (-1,)
    eps = given.get("eps", torch.finfo(x.dtype).eps if func is F.rms_norm else 1e-5)
    centred = func is not F.rms_norm
    mean = flat.mean(-1, keepdim=True) if centred else 0.0
    deviation = ((flat - mean).square().mean(-1, keepdim=True) + eps).sqrt()

    def held(y: torch.Tensor) -> torch.Tensor:
        other = y.reshape(flat.shape)
        other = ((other - other.mean(-1, keepdim=True) if centred else other) / deviation).reshape(x.shape)
        other = other if weight is None else other * weight.reshape(each)
        return other if bias is None else other + bias.reshape(each)

    return held
