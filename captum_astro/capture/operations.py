"""Classification of torch's functions, as far as the propagation rules distinguish them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import QuickGELU, RmsNorm, RmsNorm2d
from timm.layers.activations import HardMish, HardSigmoid, HardSwish, Mish, Swish
from timm.layers.activations_me import HardMishMe, HardSigmoidMe, HardSwishMe, MishMe, SwishMe
from timm.layers.norm import RmsNorm2dFp32, RmsNormFp32
from torch import nn

RMS = (RmsNorm, RmsNormFp32, RmsNorm2d, RmsNorm2dFp32)
COMPOSED_GATES = (HardSigmoid, HardSigmoidMe)
_COMPOSED = (QuickGELU, Swish, Mish, HardSwish, HardMish, SwishMe, MishMe, HardSwishMe, HardMishMe)
_COMPOSED_ELSEWHERE = ("transformers.activations.QuickGELUActivation", "open_clip.transformer.QuickGELU")

_T = torch.Tensor


def named(*names: str) -> frozenset[Callable[..., Any]]:
    """The functions and methods of torch with these names: in ``torch``, ``torch.nn.functional`` and of tensors."""
    homes = (torch, F, _T)
    return frozenset(getattr(home, name) for name in names for home in homes if hasattr(home, name))


ADD = named("add", "__add__", "__radd__")
SUB = named("sub", "subtract", "__sub__")
RSUB = named("rsub", "__rsub__")
MUL = named("mul", "multiply", "__mul__", "__rmul__")
DIV = named("div", "divide", "true_divide", "__truediv__")
NEG = named("neg", "negative", "__neg__")
MATMUL = named("matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "mv")
EINSUM = named("einsum")
ADD_PRODUCT = named("addcmul", "addmm", "baddbmm")  # the first argument plus the product of the next two
ADD_AT = named("index_add")  # to some places of the first argument
SOFTMAX = named("softmax")
CONVOLUTION = named("conv1d", "conv2d", "conv3d")
TRANSPOSED = named("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
LINEAR = named("linear") | CONVOLUTION | TRANSPOSED
DROPOUT = named("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
NORM = frozenset({F.layer_norm, F.rms_norm, F.group_norm, F.normalize, torch.layer_norm, torch.group_norm})
BATCH_NORM = named("batch_norm", "instance_norm")
# activations with f(0) = 0
ACTIVATION = named(
    "gelu", "silu", "relu", "relu6", "hardswish", "mish", "leaky_relu", "elu", "selu", "celu", "hardtanh", "tanh",
    "prelu", "softsign", "tanhshrink", "softshrink", "hardshrink",
)  # fmt: skip
SATURATING = named("softplus", "logsigmoid")
# between 0 and 1: a signal is multiplied by them
GATES = named("sigmoid", "hardsigmoid")
GLU = named("glu")
# the inverse of a size, by which a norm multiplies
INVERSE = named("rsqrt", "reciprocal", "__rdiv__", "__rtruediv__")
POWER = named("pow", "__pow__")
# elementwise and homogeneous, as powers are
HOMOGENEOUS = named("sqrt", "square", "abs", "absolute", "__abs__")
CLAMP = named("clamp", "clip", "clamp_min", "clamp_max")
VARIANCE = named("var")
# one value for several, of degree one: f(c x) = c f(x)
POOL = named(
    "mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "lp_pool1d", "lp_pool2d", "norm", "std", "cumsum", "fold", "interpolate", "upsample",
    "grid_sample",
)  # fmt: skip
RESIZE = named("interpolate", "upsample", "grid_sample")
# in-place operations modify their first argument, so their replacements must do the same
IN_PLACE = {
    getattr(home, f"{name}_"): getattr(torch, name, None) or getattr(F, name)
    for name in ("add", "sub", "mul", "div", "neg", "sigmoid", "tanh", "relu", "clamp", "square", "sqrt", "rsqrt",
                 "masked_fill", "pow", "addcmul", "index_add", "abs", "elu", "selu", "celu", "hardtanh", "leaky_relu")
    for home in (torch, F, _T) if hasattr(home, f"{name}_")
} | {
    _T.__iadd__: torch.add, _T.__isub__: torch.sub, _T.__imul__: torch.mul, _T.__itruediv__: torch.div,
    _T.__ipow__: torch.pow,
}  # fmt: skip
# every value of the result is one value of an argument, or a constant: relevance flows to where it came from, as a
# gradient does
MOVES = named(
    "__getitem__", "reshape", "view", "permute", "transpose", "flatten", "unflatten", "unbind", "chunk", "split",
    "expand", "contiguous", "squeeze", "unsqueeze", "clone", "to", "type_as", "float", "double", "expand_as", "roll",
    "narrow", "select", "movedim", "moveaxis", "swapaxes", "swapdims", "repeat_interleave", "requires_grad_", "type",
    "view_as", "reshape_as", "split_with_sizes", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack",
    "pad", "bfloat16", "half", "flip", "fliplr", "flipud", "rot90", "repeat", "tile", "broadcast_to", "ravel", "t",
    "unfold", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "index_select", "gather",
    "take_along_dim", "tril", "triu", "diagonal", "masked_fill", "masked_select", "where", "tensor_split",
    "column_stack", "broadcast_tensors", "atleast_1d", "atleast_2d", "atleast_3d", "meshgrid", "unsafe_chunk",
    "unsafe_split", "view_as_real", "adjoint", "copy_", "__setitem__", "cpu", "cuda", "swapaxes", "hsplit", "vsplit",
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "amax", "amin", "max", "min", "maximum", "minimum", "topk", "sort", "median", "max_pool2d_with_indices",
    "adaptive_max_pool2d_with_indices",
) | {getattr(_T, name).__get__ for name in ("T", "mT", "H", "mH", "data", "real")}  # fmt: skip
LIKE = named("expand_as", "view_as", "reshape_as", "type_as")  # of the second argument, only the form is read

PRODUCT = MUL | DIV | MATMUL | EINSUM | LINEAR  # linear in each of its factors
# a linear map of its arguments plus a constant, or one on each piece of the space
AFFINE = ADD | SUB | RSUB | NEG | POOL | MOVES | DROPOUT | BATCH_NORM | CLAMP


def is_composed(module: nn.Module) -> bool:
    """Whether this is an activation that consists of several operations, and is to be seen as one."""
    kind = type(module)
    return kind in _COMPOSED or f"{kind.__module__}.{kind.__qualname__}" in _COMPOSED_ELSEWHERE


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


def is_positive(exponent: Any) -> bool:
    """Whether a power is a root or a product of a value with itself, not a quotient."""
    return not needs_grad(exponent) and bool(torch.as_tensor(exponent > 0).all())


def is_negative(exponent: Any) -> bool:
    """Whether a power is a quotient."""
    return not needs_grad(exponent) and bool(torch.as_tensor(exponent < 0).all())


@functools.cache
def place_of_inplace(func: Any) -> int | None:
    """Which argument of an activation says that it acts in place; None if it has none."""
    try:
        return list(inspect.signature(func).parameters).index("inplace")
    except (ValueError, TypeError):
        return None


def no_rule(func: Any) -> str:
    """The message for an operation that cannot be propagated through."""
    return f"{getattr(func, '__name__', func)} has no propagation rule here. The attention and gradient methods work."
