"""Classification of torch's functions, as far as the propagation rules distinguish them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import QuickGELU, RmsNorm, RmsNorm2d
from timm.layers.activations import HardSwish, Mish, Swish
from timm.layers.norm import RmsNorm2dFp32, RmsNormFp32

RMS = (RmsNorm, RmsNormFp32, RmsNorm2d, RmsNorm2dFp32)
COMPOSED = (QuickGELU, Swish, Mish, HardSwish)

_T = torch.Tensor
ADD = (_T.__add__, _T.__radd__, _T.add, torch.add)
SUB = (_T.__sub__, _T.sub, torch.sub)
MUL = (_T.__mul__, _T.__rmul__, _T.mul, torch.mul)
DIV = (_T.__truediv__, _T.div, torch.div)
MATMUL = (torch.matmul, torch.bmm, torch.mm, _T.matmul, _T.__matmul__, _T.bmm, _T.mm)
POOL = (_T.mean, torch.mean, _T.sum, torch.sum, F.avg_pool2d, F.adaptive_avg_pool2d)
NEG = (torch.neg, _T.neg, _T.__neg__)
SOFTMAX = (torch.softmax, F.softmax, _T.softmax)
LINEAR = (F.linear, F.conv2d, torch.conv2d)
DROPOUT = (F.dropout, torch.dropout, F.dropout2d)
NORM = (F.layer_norm, F.rms_norm, F.group_norm, F.normalize)
BATCH_NORM = (F.batch_norm, torch.batch_norm)
ACTIVATION = {
    F.gelu, F.silu, F.relu, torch.relu, _T.relu, torch.relu_, F.relu6, F.hardswish, F.mish, F.leaky_relu, F.elu,
    F.selu, F.celu, F.hardtanh, torch.tanh, _T.tanh, F.tanh, torch.clamp, _T.clamp,
}  # fmt: skip
SATURATING = {torch.sigmoid, _T.sigmoid, F.sigmoid, F.softplus, F.hardsigmoid, F.logsigmoid}
# in-place operations modify their first argument, so their replacements must do the same
IN_PLACE = {
    _T.add_: torch.add, _T.__iadd__: torch.add, _T.sub_: torch.sub, _T.__isub__: torch.sub, _T.mul_: torch.mul,
    _T.__imul__: torch.mul, _T.div_: torch.div, _T.__itruediv__: torch.div,
}  # fmt: skip
# relevance flows to where the value came from, as a gradient does
MOVES = {
    _T.__getitem__, _T.reshape, _T.view, _T.permute, _T.transpose, _T.flatten, _T.unflatten, _T.unbind, _T.chunk,
    _T.split,
    _T.expand, _T.contiguous, _T.squeeze, _T.unsqueeze, _T.clone, _T.to, _T.type_as, _T.float, _T.double,
    _T.expand_as, _T.roll,
    _T.narrow, _T.select, _T.movedim, _T.repeat_interleave, _T.requires_grad_, _T.type, _T.view_as, _T.split_with_sizes,
    torch.reshape, torch.permute, torch.transpose, torch.flatten, torch.unbind, torch.chunk, torch.split, torch.cat,
    torch.stack,
    torch.squeeze, torch.unsqueeze, torch.roll, torch.clone, torch.concat, torch.repeat_interleave, torch.movedim,
    F.pad, F.max_pool2d, torch.max_pool2d, _T.bfloat16, _T.half,
}  # fmt: skip


def needs_grad(x: Any) -> bool:
    """Whether this is a tensor that depends on the image."""
    return isinstance(x, torch.Tensor) and x.requires_grad


def both_need_grad(args: Any) -> bool:
    """Whether the first two arguments are such tensors."""
    return len(args) > 1 and needs_grad(args[0]) and needs_grad(args[1])


def flattened(args: Any, kwargs: Any) -> list[Any]:
    """All arguments, including those inside lists."""
    flat = []
    for value in (*args, *kwargs.values()):
        flat += list(value) if isinstance(value, list | tuple) else [value]
    return flat


def no_rule(func: Any) -> str:
    """The message for an operation that cannot be propagated through."""
    return f"{getattr(func, '__name__', func)} has no propagation rule here. The attention and gradient methods work."
