"""The mode that dispatches a model's operations to propagation rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from captum_astro.capture.constants import Constants
from captum_astro.capture.explaining import current
from captum_astro.capture.gates import Gates
from captum_astro.capture.lstm import written_out
from captum_astro.capture.operations import (
    ACTIVATION,
    ADD_AT,
    ADD_PRODUCT,
    COMPOSED_GATES,
    DIV,
    EINSUM,
    GATES,
    GLU,
    IN_PLACE,
    INVERSE,
    LIKE,
    LINEAR,
    MATMUL,
    MUL,
    POWER,
    RMS,
    flattened,
    is_composed,
    is_negative,
    needs_grad,
    place_of_inplace,
)
from captum_astro.capture.settled import is_adapter
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.walk import modules_of

_FACTORS = MUL | DIV | MATMUL | EINSUM | LINEAR  # of which one may be a gate


class UnderRules(nn.Module):
    """Base of modules that run a model under rules of their own."""


class Rules(TorchFunctionMode):
    """A mode that passes every operation to `operation`, and composed modules to `composed`.

    What all methods treat alike is done here: gates and denominators are constants.

    Attributes:
        constants: Notes what the model adds to the features, if set.
        comparable: Whether a pass can be compared with a layout: its gradients show which tokens are read.
    """

    comparable = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._inside = 0
        self._handles: list[RemovableHandle] = []
        self._explanation = current()
        self._gates = Gates()
        self.constants: Constants | None = None

    def __enter__(self) -> Any:
        for module in modules_of(self._model):
            if isinstance(module, UnderRules):
                name = type(module).__name__
                raise UnsupportedModelError(
                    f"{name} has propagation rules of its own, which cannot be joined with those of this method: "
                    f"explain the model itself, or use a gradient method on {name}."
                )
            if isinstance(module, RMS) and not type(module).__module__.startswith("timm.layers."):
                raise UnsupportedModelError(f"{type(module).__name__} has no propagation rule.")
            if is_adapter(module):
                raise UnsupportedModelError(
                    f"{type(module).__name__} adds a low-rank adapter to a layer that is not linear, so relevance "
                    f"would differ from that of the merged layer. Merge it: merge_and_unload() in peft."
                )
        for module in modules_of(self._model):
            if type(module) in (*RMS, *COMPOSED_GATES) or is_composed(module):
                self._handles.append(module.register_forward_pre_hook(self._into))
                self._handles.append(module.register_forward_hook(self._out_of, always_call=True))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._inside or current() != self._explanation or not any(needs_grad(x) for x in flattened(args, kwargs)):
            return func(*args, **kwargs)
        if not args and "input" in kwargs:
            args, kwargs = (kwargs["input"],), {name: x for name, x in kwargs.items() if name != "input"}
        if func in IN_PLACE:
            return self._in_place(IN_PLACE[func], args, kwargs)
        if func in ACTIVATION | GATES and (place := place_of_inplace(func)) is not None:
            given = (*args[:place], False, *args[place + 1 :]), {n: x for n, x in kwargs.items() if n != "inplace"}
            if kwargs.get("inplace") or args[place : place + 1] == (True,):
                return self._in_place(func, given[0] if len(args) > place else args, given[1])
        return self._ruled(func, args, kwargs)

    def noted(self, constants: Constants, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of an operation, whose constants are noted."""
        return constants.in_sums(func, args, kwargs)

    def composed(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The output that replaces an RMS norm or an activation."""
        raise NotImplementedError

    def slope(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor | None:
        """The slope of a gate, elementwise, where it does not multiply a signal; None for no rule."""
        return None

    def operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Any other operation that depends on the image."""
        raise NotImplementedError

    def _in_place(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        """Write the result into the first argument: relevance of the new content flows to its inputs."""
        before = args[0].clone()
        self._gates.replace(before, args[0])
        after = self._ruled(func, (before, *args[1:]), kwargs)
        self._gates.replace(args[0], after)
        result: torch.Tensor = args[0].copy_(after)
        return result

    def _ruled(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation, in which gates and denominators are constants."""
        if self.constants is not None:
            args, kwargs = self.noted(self.constants, func, args, kwargs)
        if self._gates.all_among(args[:1] if func in LIKE else args, kwargs):
            return self._gates.follow(self._with_constant_denominators(func, args, kwargs))
        if func in _FACTORS:
            args, kwargs = self._gates.held(args), {name: self._gates.held(x) for name, x in kwargs.items()}
        return self._with_constant_denominators(func, args, kwargs)

    def _with_constant_denominators(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in DIV and needs_grad(args[1]):
            args = (args[0], args[1].detach(), *args[2:])
            if not needs_grad(args[0]):
                return self._gates.made(func, args[1], func(*args, **kwargs))
        if func in INVERSE or (func in POWER and is_negative(*args[1:], **kwargs)):
            return self._gates.made(func, args[0], func(args[0].detach(), *args[1:], **kwargs))
        if func in GATES:
            return self._gate(func, args[0], func(args[0].detach().clone(), *args[1:], **kwargs))
        if func in GLU:
            signal, gate = args[0].chunk(2, *(args[1:] or (kwargs.get("dim", -1),)))
            return self.operation(torch.mul, (signal, gate.detach().sigmoid()), {})
        if func is torch.lstm:
            return written_out(self._ruled, *args, **kwargs)
        if func in ADD_PRODUCT:
            return self._added(func, *args, **kwargs)
        if func in ADD_AT and needs_grad(args[0]) and not any(needs_grad(x) for x in (*args[1:], *kwargs.values())):
            added = func(torch.zeros_like(args[0]), *args[1:], **kwargs)
            return self._ruled(torch.add, (args[0], added), {})
        return self.operation(func, args, kwargs)

    def _gate(self, func: Any, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return self._gates.made(func, x, output, self.slope(x.detach(), output.detach()))

    def _added(self, func: Any, x: Any, one: Any, other: Any, *, beta: Any = 1, alpha: Any = 1, value: Any = 1) -> Any:
        """``beta x + alpha one @ other``, or the elementwise ``x + value one * other``, one operation at a time."""
        product = self._ruled(torch.mul if "mul" in func.__name__ else torch.matmul, (one, other), {})
        for factor in (alpha, value):
            product = product if factor == 1 else self._ruled(torch.mul, (product, factor), {})
        return self._ruled(torch.add, (x if beta == 1 else self._ruled(torch.mul, (x, beta), {}), product), {})

    def _into(self, module: nn.Module, arguments: Any) -> None:
        if current() == self._explanation:
            self._inside += 1

    def _out_of(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        if current() != self._explanation:
            return None
        try:  # still inside: operations computed by the rule itself do not belong to the model
            if not needs_grad(output):
                return None
            x = arguments[0]
            if x in self._gates:
                return self._gates.follow(output)
            if type(module) in COMPOSED_GATES:
                return self._gate(type(module), x, output)
            return self.composed(module, x, output)
        finally:
            self._inside -= 1
