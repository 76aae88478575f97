"""Modes that put propagation rules in the place of a model's operations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import QuickGELU, RmsNorm, RmsNorm2d
from timm.layers.activations import HardSwish, Mish, Swish
from timm.layers.norm import RmsNorm2dFp32, RmsNormFp32
from torch import nn
from torch.nn.grad import conv2d_input
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from captum_astro.functional import rules
from captum_astro.functional.attention import Softmax, widen
from captum_astro.layouts.errors import UnsupportedModelError

# written in several operations, so taken as one by their class; other norms and activations are functions
_RMS = (RmsNorm, RmsNormFp32, RmsNorm2d, RmsNorm2dFp32)
_COMPOSED = (QuickGELU, Swish, Mish, HardSwish)

_T = torch.Tensor
_ADD = (_T.__add__, _T.__radd__, _T.add, torch.add)
_SUB = (_T.__sub__, _T.sub, torch.sub)
_MUL = (_T.__mul__, _T.__rmul__, _T.mul, torch.mul)
_DIV = (_T.__truediv__, _T.div, torch.div)
_MATMUL = (torch.matmul, torch.bmm, torch.mm, _T.matmul, _T.__matmul__, _T.bmm, _T.mm)
_MEAN = (_T.mean, torch.mean, _T.sum, torch.sum)
_NEG = (torch.neg, _T.neg, _T.__neg__)
_SOFTMAX = (torch.softmax, F.softmax, _T.softmax)
_LINEAR = (F.linear, F.conv2d, torch.conv2d)
_DROPOUT = (F.dropout, torch.dropout, F.dropout2d)
_NORM = (F.layer_norm, F.rms_norm, F.group_norm)
_BATCH_NORM = (F.batch_norm, torch.batch_norm)
_ACTIVATION = {
    F.gelu, F.silu, F.relu, torch.relu, _T.relu, torch.relu_, F.relu6, F.hardswish, F.mish, F.leaky_relu, F.elu,
    F.selu, F.celu, F.hardtanh, torch.tanh, _T.tanh, F.tanh,
}  # fmt: skip
_SATURATING = {torch.sigmoid, _T.sigmoid, F.sigmoid, F.softplus, F.hardsigmoid, F.logsigmoid}
# as statements they change their first argument, so what replaces them must
_IN_PLACE = {
    _T.add_: torch.add, _T.__iadd__: torch.add, _T.sub_: torch.sub, _T.__isub__: torch.sub, _T.mul_: torch.mul,
    _T.__imul__: torch.mul, _T.div_: torch.div, _T.__itruediv__: torch.div,
}  # fmt: skip
# relevance goes where the value came from, as a gradient does
_MOVES = {
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


class _Rules(TorchFunctionMode):
    """A mode that hands every operation to `operation`, and modules made of several to `composed`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._inside = 0
        self._handles: list[RemovableHandle] = []
        self._thread = threading.get_ident()

    def __enter__(self) -> Any:
        for module in self._model.modules():
            if type(module) in (*_RMS, *_COMPOSED):
                self._handles.append(module.register_forward_pre_hook(self._into))
                self._handles.append(module.register_forward_hook(self._out_of, always_call=True))
            elif isinstance(module, _RMS):
                raise UnsupportedModelError(f"{type(module).__name__} has no propagation rule.")
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._inside or not any(_grad(x) for x in _flat(args, kwargs)):
            return func(*args, **kwargs)
        if func in _IN_PLACE:
            # relevance of the new content goes to what it was made from
            return args[0].copy_(self.operation(_IN_PLACE[func], (args[0].clone(), *args[1:]), kwargs))
        return self.operation(func, args, kwargs)

    def composed(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The output that stands for an RMS norm or an activation."""
        raise NotImplementedError

    def operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Any other operation that depends on the image."""
        raise NotImplementedError

    def _into(self, module: nn.Module, arguments: Any) -> None:
        if threading.get_ident() == self._thread:
            self._inside += 1

    def _out_of(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        if threading.get_ident() != self._thread:
            return None
        try:  # still inside: what the rule itself computes is no operation of the model
            return self.composed(module, arguments[0], output) if isinstance(output, torch.Tensor) else None
        finally:
            self._inside -= 1


class _GradientRules(_Rules):
    """Rules that change gradients: norms keep their deviation, products of two activations share in halves."""

    def composed(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """RMS norms by the LN rule, activations by the method's."""
        if isinstance(module, _COMPOSED):
            return self.activation(x, output)
        dim = 1 if isinstance(module, RmsNorm2d | RmsNorm2dFp32) else -1
        moved = x.movedim(dim, -1)
        norm: Any = module
        scale = _inverse(moved, False, norm.eps)
        return rules.frozen_norm(moved, scale, False, norm.weight, None).movedim(-1, dim)

    def operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The rule of each operation."""
        if func is F.scaled_dot_product_attention:
            return self.attention(*args, **kwargs)
        if func in _SOFTMAX:
            return self.softmax(func(*args, **kwargs))
        if func in _NORM:
            return _frozen(func, *args, **kwargs)
        if func in _ACTIVATION:
            return self.activation(args[0], func(args[0].clone(), *args[1:], **kwargs))  # some work in place
        if func in _SATURATING:
            return self.saturating(func, func(*args, **kwargs))
        if func in (*_MUL, *_MATMUL) and _both(args):
            return func(*(rules.ScaledGradient.apply(x, 0.5) for x in args), **kwargs)
        if func is torch.einsum and _both(args[1:]):
            return func(args[0], *(rules.ScaledGradient.apply(x, 0.5) for x in args[1:]), **kwargs)
        several = sum(_grad(x) for x in _flat(args, kwargs)) > 1
        if several and func not in (*_ADD, *_SUB) and func not in _MOVES:
            raise UnsupportedModelError(_no_rule(func))
        return func(*args, **kwargs)

    def attention(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Fused attention."""
        raise NotImplementedError

    def softmax(self, output: torch.Tensor) -> torch.Tensor:
        """A softmax that the model writes out."""
        return output

    def activation(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """An activation with f(0) = 0."""
        return output

    def saturating(self, func: Any, output: torch.Tensor) -> torch.Tensor:
        """An activation with f(0) other than 0."""
        return output


class ConstantWeights(_GradientRules):
    """Conservative LRP: attention weights and the norms' deviations are constants; a gate shares in halves."""

    def attention(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The AH rule."""
        return rules.attention_with_constant_weights(*args, **kwargs)

    def softmax(self, output: torch.Tensor) -> torch.Tensor:
        """The AH rule."""
        return output.detach()


class SharedGradients(_GradientRules):
    """AttnLRP: products share in halves, norms by the LN rule, activations by the identity rule."""

    def attention(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The uniform rule twice, and the softmax as it is."""
        return rules.attention_with_shared_gradients(*args, **kwargs)

    def activation(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The identity rule."""
        return rules.identity_activation(x, output)

    def saturating(self, func: Any, output: torch.Tensor) -> torch.Tensor:
        """``f(x) / x`` has no limit at 0."""
        raise UnsupportedModelError(_no_rule(func))


class Relevance(_Rules):
    """Deep Taylor with z+: the backward pass carries relevance.

    Args:
        model: The module that is run.
        seen: Told of each attention map's relevance: ``seen(slice of queries, R_A)``, with the module that is running
            found by the caller. None if nobody asks.
    """

    def __init__(self, model: nn.Module, seen: Callable[[], Callable[[slice, torch.Tensor], None] | None]) -> None:
        super().__init__(model)
        self._seen = seen
        self._pixels = True

    def composed(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Norms and activations pass relevance on."""
        passed: torch.Tensor = rules.Unchanged.apply(x, output.detach())
        return passed

    def operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The rule of each operation; one without a rule is refused."""
        rule = self._rule(func, args, kwargs)
        if rule is not None:
            return rule()
        result = func(*args, **kwargs)
        if func in _MOVES or not any(_grad(x) for x in _flat((result,), {})):
            return result
        raise UnsupportedModelError(_no_rule(func))

    def _rule(self, func: Any, args: Any, kwargs: Any) -> Callable[[], Any] | None:
        if func is F.scaled_dot_product_attention:
            return lambda: self._attention(*args, **kwargs)
        if func in _LINEAR:
            return lambda: self._linear(func, args, kwargs)
        if func in (*_NORM, *_BATCH_NORM, *_DROPOUT) or func in _ACTIVATION:
            return lambda: rules.Unchanged.apply(args[0], func(args[0].detach().clone(), *args[1:], **kwargs))
        if func in (*_ADD, *_SUB, *_MUL, *_DIV) and kwargs:
            return None
        if func in (*_ADD, *_SUB) and self._pixels and not _both(args) and _grad(args[0]):
            # a normalisation before the first layer: the pixels keep what they get
            return lambda: _apply(rules.Unchanged, args[0], func(args[0].detach(), *args[1:]))
        if func in _ADD:
            return lambda: _apply(rules.ResidualAdd, *_two(args))
        if func in _SUB:
            return lambda: _apply(rules.ResidualAdd, args[0], _negative(args[1]))
        if func in _NEG:
            return lambda: _negative(args[0])
        if func in _MUL and _both(args):
            return lambda: _apply(rules.Gate, *args)
        if func in (*_MUL, *_DIV):
            x, factor = (args[0], args[1]) if _grad(args[0]) else (args[1], args[0])
            if _grad(factor) or (func in _DIV and x is args[1]):
                return None
            return lambda: _apply(rules.Unchanged, *_constant(func, x, factor))
        if func in _MATMUL and _both(args):
            return lambda: _apply(rules.Product, *args)
        if func in _MATMUL and not isinstance(args[1], nn.Parameter):
            return lambda: _apply(rules.Product, *args)
        if func in _MATMUL and _grad(args[0]):
            return lambda: _apply(
                rules.LinearZPlus, args[0], args[1].detach(), None, torch.matmul, lambda r, w: r @ w.transpose(-2, -1)
            )
        if func in _SOFTMAX:
            return lambda: _apply(_WatchedSoftmax, args[0], func(args[0].detach(), *args[1:], **kwargs), self._seen())
        if func in _MEAN:
            return lambda: _sum_rule(func, args, kwargs)
        return None

    def _linear(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = dict(zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, strict=False))
        given |= kwargs
        x, weight, bias = given.pop("input"), given.pop("weight").detach(), given.pop("bias", None)
        if self._pixels:
            self._pixels = False
            output = func(x.detach(), weight, bias, **given)
            return _apply(rules.InputZB, x, lambda y, w: func(y, w, None, **given), weight, output)
        bias = None if bias is None else bias.detach()
        if func is F.linear:
            return _apply(rules.LinearZPlus, x, weight, bias, F.linear, torch.matmul)
        return _apply(
            rules.LinearZPlus,
            x,
            weight,
            bias,
            lambda y, w: F.conv2d(y, w, None, **given),
            lambda r, w: conv2d_input(x.shape, w, r, **given),
        )

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        if dropout_p:
            raise UnsupportedModelError("Attention dropout is active, and cannot be drawn again. Call model.eval().")
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        bias = None if attn_mask is None else attn_mask.detach()
        maps = Softmax(query.detach(), key.detach(), scale, bias, is_causal)
        output = F.scaled_dot_product_attention(
            query.detach(), key.detach(), value.detach(), bias, is_causal=is_causal, scale=scale
        )
        result = _apply(rules.FusedAttention, query, key, value, output, maps.rows, self._seen())
        assert isinstance(result, torch.Tensor)
        return result


class _WatchedSoftmax(rules.Unchanged):
    """The rule of a softmax that the model writes out, whose relevance somebody may want."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, output: torch.Tensor, seen: Any = None) -> torch.Tensor:
        ctx.seen = seen
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        if ctx.seen is not None and relevance[0].ndim == 4:
            ctx.seen(slice(0, relevance[0].shape[2]), relevance[0])
        return relevance[0], None, None


def _sum_rule(func: Any, args: Any, kwargs: Any) -> Any:
    x = args[0]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    keepdim = bool(kwargs.get("keepdim", args[2] if len(args) > 2 else False))
    return _apply(rules.SumZ, x, dims, keepdim, func(x.detach(), *args[1:], **kwargs))


def _constant(func: Any, x: torch.Tensor, factor: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A product or quotient with a constant, of x's shape."""
    output = x.detach() / factor if func in _DIV else x.detach() * factor
    return (x if x.shape == output.shape else x.expand_as(output)), output


def _negative(x: torch.Tensor) -> Any:
    """Relevance keeps its sign where a value changes it."""
    return _apply(rules.Unchanged, x, -x.detach()) if _grad(x) else -torch.as_tensor(x)


def _two(args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (x if isinstance(x, torch.Tensor) else None for x in args[:2])
    like = a if a is not None else b
    assert like is not None
    return (
        a if a is not None else torch.as_tensor(args[0], dtype=like.dtype, device=like.device).expand_as(like),
        b if b is not None else torch.as_tensor(args[1], dtype=like.dtype, device=like.device).expand_as(like),
    )


def _frozen(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A norm, as a function, with its deviation held constant."""
    names = ("num_groups",) if func is F.group_norm else ("normalized_shape",)
    given = (
        dict(zip((*names, "weight", *(() if func is F.rms_norm else ("bias",)), "eps"), args, strict=False)) | kwargs
    )
    weight, bias, eps = given.get("weight"), given.get("bias"), given.get("eps", 1e-5)
    if func is not F.group_norm:
        if len(given["normalized_shape"]) != 1:
            raise UnsupportedModelError(_no_rule(func))
        centred = func is F.layer_norm
        return rules.frozen_norm(x, _inverse(x, centred, eps), centred, weight, bias)
    grouped = x.reshape(len(x), given["num_groups"], -1)
    y = rules.frozen_norm(grouped, _inverse(grouped, True, eps), True, None, None).reshape(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _inverse(x: torch.Tensor, centred: bool, eps: float | None) -> torch.Tensor:
    x = widen(x.detach())
    power = x.var(-1, unbiased=False) if centred else x.pow(2).mean(-1)
    return (power + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()


def _no_rule(func: Any) -> str:
    return f"{getattr(func, '__name__', func)} has no propagation rule here. The attention and gradient methods work."


def _apply(rule: Any, *args: Any) -> Any:
    return rule.apply(*args)


def _grad(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.requires_grad


def _both(args: Any) -> bool:
    return len(args) > 1 and _grad(args[0]) and _grad(args[1])


def _flat(args: Any, kwargs: Any) -> list[Any]:
    flat = []
    for value in (*args, *kwargs.values()):
        flat += list(value) if isinstance(value, list | tuple) else [value]
    return flat
