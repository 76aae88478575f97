"""A private copy of a model: its own modules, modes and hooks, over the same weights."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from captum_astro.capture.settled import settle
from captum_astro.layouts.unwrap import python_code

# what a module registers: parameters, buffers, children and hooks
_REGISTERED = frozenset(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))
_PLAIN = frozenset((type(None), bool, int, float, str))


class Replica:
    """A copy of a model to run under hooks and rules, which nobody else sees.

    Weights are shared, not copied, unless they are widened; they require no gradient. Buffers are copied if the model
    is in train mode, where a pass changes them. Whatever leads from one part of the model to another leads to its copy:
    children, lists, bound methods, and the variables that a user's hook encloses. Compiled modules are replaced by
    their Python code, because compiled code hides its layers, and layers that compute their weight by plain ones.
    timm's fused attention is on, so that no n x n map is built.

    Args:
        model: The user's model.
        dtype: The least precision of its floating-point tensors; their own by default.

    Attributes:
        model: The copy.
        dtype: The precision of the user's model.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None) -> None:
        self._least = dtype
        self.dtype = next((x.dtype for x in model.parameters()), torch.get_default_dtype())
        self._known: dict[int, tuple[Any, Any]] = {}  # by identity: what was met, kept alive, and what replaces it
        modules = list(model.modules())
        for module in modules:
            scripted = isinstance(module, torch.jit.ScriptModule)
            self._know(module, module if scripted else object.__new__(type(module)))
        for module in modules:
            if (code := python_code(module)) is not None:
                self._know(module, self.of(code))
        if any(module.training for module in modules):
            for buffer in model.buffers():
                self._know(buffer, self._detached(buffer).clone())
        for module in modules:
            if type(module) is type(self.of(module)) and self.of(module) is not module:
                self._fill(self.of(module), module)
        self.model: nn.Module = self.of(model)
        device = next((x.device.type for x in model.parameters()), "cpu")
        with torch.no_grad(), torch.autocast(device, enabled=False):
            for module in list(self.model.modules()):
                settle(module)

    def of(self, value: Any) -> Any:
        """What stands for something of the user's model in the copy: itself, if it leads to no module."""
        if type(value) in _PLAIN:
            return value
        if id(value) not in self._known:
            self._know(value, value)  # it may contain itself
            self._know(value, self._copied(value))
        return self._known[id(value)][1]

    def widened(self, value: Any) -> Any:
        """A tensor of floating-point numbers in at least the precision of the copy; anything else unchanged."""
        if self._least is None or not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        return value.to(torch.promote_types(value.dtype, self._least))

    def _know(self, value: Any, copy: Any) -> None:
        self._known[id(value)] = value, copy

    def _fill(self, copy: nn.Module, module: nn.Module) -> None:
        for name, value in tuple(vars(module).items()):
            if name in _REGISTERED:
                copy.__dict__[name] = own = value.copy()  # mostly empty, so this is nearly all that a copy costs
                for key in own:
                    own[key] = self._attribute(own[key])
            else:
                copy.__dict__[name] = self._attribute(value)
        copy.__dict__["_compiled_call_impl"] = None
        if copy.__dict__.get("fused_attn") is False:
            copy.__dict__["fused_attn"] = True

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and id(value) not in self._known:
            self._know(value, self._detached(value))
        return self.of(value)

    def _copied(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and isinstance(value, nn.Parameter):
            return self._detached(value)
        if type(value) in (list, tuple):
            parts = [self.of(part) for part in value]
            return value if _same(parts, value) else type(value)(parts)
        if type(value) in (dict, OrderedDict):
            parts = [self.of(part) for part in value.values()]
            return value if _same(parts, value.values()) else type(value)(zip(value, parts, strict=True))
        if isinstance(value, MethodType):
            owner = self.of(value.__self__)
            return value if owner is value.__self__ else MethodType(value.__func__, owner)
        if isinstance(value, partial):
            old = value.func, value.args, value.keywords
            function, args, keywords = (self.of(part) for part in old)
            return value if _same((function, args, keywords), old) else partial(function, *args, **keywords)
        return self._function(value) if isinstance(value, FunctionType) else value

    def _function(self, function: FunctionType) -> Any:
        """A function whose enclosed variables lead to the copy."""
        if hasattr(function, "_torchdynamo_orig_callable"):
            return self.of(function._torchdynamo_orig_callable)
        cells = function.__closure__ or ()
        enclosed = tuple(self._cell(cell) for cell in cells)
        if _same(enclosed, cells):
            return function
        copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, enclosed)
        copy.__kwdefaults__ = function.__kwdefaults__
        return copy

    def _cell(self, cell: CellType) -> CellType:
        try:
            content = cell.cell_contents
        except ValueError:  # a variable without a value
            return cell
        copy = self.of(content)
        return cell if copy is content else CellType(copy)

    def _detached(self, x: torch.Tensor) -> torch.Tensor:
        if type(x) is nn.Parameter:  # another class of parameter, as of a quantised weight, is more than its data
            copy = nn.Parameter(self.widened(x.data), requires_grad=False)
            copy.__dict__.update(vars(x))
            return copy
        wide: torch.Tensor = self.widened(x.detach() if x.requires_grad else x)
        return wide


def _same(new: Any, old: Any) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))
