"""A private copy of a model: its own modules, modes and hooks, over the same weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from captum_astro.capture.contents import slots
from captum_astro.capture.links import Links, is_plain
from captum_astro.capture.opened import open_attention
from captum_astro.capture.settled import settle
from captum_astro.layouts.unwrap import python_code
from captum_astro.layouts.walk import modules_of

# what a module registers: parameters, buffers, children and hooks
_KEPT = frozenset(name for name, value in vars(nn.Module()).items() if isinstance(value, dict | set))
_IDLE = frozenset(name for name in _KEPT if "state_dict" in name)  # hooks around saving and loading stay the user's own
_REGISTERED = _KEPT - _IDLE


class Replica:
    """A copy of a model to run under hooks and rules, which nobody else sees.

    Weights are shared, not copied, unless they are widened; they require no gradient. What the modules keep besides is
    copied, because a pass may change it: buffers, other tensors, containers and plain objects. Whatever leads from one
    part of the model to another leads to its copy: children, bound methods, weak references, and the variables that a
    user's hook encloses. What else a hook writes to is the user's own. Compiled modules are replaced by their Python
    code, because compiled code hides its layers, and layers that compute their weight by plain ones. Attention modules
    that hide their operations are opened. timm's fused attention is on, so that no n x n map is built.

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
        self._links = Links(partial(_stand_in, least=dtype))
        copied = []
        for module in reversed(modules_of(model)):  # what is inside a compiled module comes first
            if (code := python_code(module)) is not None:
                self._links.know(module, self.of(code))
            elif isinstance(module, torch.jit.ScriptModule):
                self._links.know(module, module)
            else:
                self._begin(module)
                copied.append(module)
        for module in copied:
            state = [part for name, part in vars(module).copy().items() if name not in _KEPT and not is_plain(part)]
            self._links.claim([*state, *module._buffers.values(), *(part for part, _ in slots(module))])
        for module in copied:
            self._fill(self.of(module), module)
        self.model: nn.Module = self.of(model)
        device = next((x.device.type for x in model.parameters()), "cpu")
        with torch.no_grad(), torch.autocast(device, enabled=False):
            for module in modules_of(self.model):
                settle(module)
                open_attention(module)

    def of(self, value: Any) -> Any:
        """What stands for something of the user's model in the copy: itself, if it leads to no part of it."""
        return self._links.of(value)

    def widened(self, value: Any) -> Any:
        """A tensor of floating-point numbers in at least the precision of the copy; anything else unchanged."""
        return _widened(value, self._least) if isinstance(value, torch.Tensor) else value

    def _begin(self, module: nn.Module) -> None:
        copy = object.__new__(type(module))
        theirs, own = vars(module), vars(copy)
        self._links.know(module, copy)
        self._links.know(theirs, own)
        own.update(theirs)
        for name in _REGISTERED & theirs.keys():
            own[name] = theirs[name].copy()  # mostly empty, so this is nearly all that a copy costs
            self._links.know(theirs[name], own[name])

    def _fill(self, copy: nn.Module, module: nn.Module) -> None:
        own = vars(copy)
        for name, value in own.copy().items():
            if is_plain(value) or name in _IDLE or (name in _REGISTERED and not value):
                continue
            if name not in _REGISTERED:
                own[name] = self.of(value)
            elif isinstance(value, dict):
                value.update({key: self.of(part) for key, part in value.items()})
        for part, slot in slots(module):
            slot.__set__(copy, self.of(part))
        own["_compiled_call_impl"] = None
        if own.get("fused_attn") is False:
            own["fused_attn"] = True


def _widened(x: torch.Tensor, least: torch.dtype | None) -> torch.Tensor:
    return x if least is None or not x.is_floating_point() else x.to(torch.promote_types(x.dtype, least))


def _stand_in(x: torch.Tensor, least: torch.dtype | None) -> torch.Tensor:
    """What stands for a tensor: a parameter with the same data, or a copy of what a pass may write to."""
    if type(x) is nn.Parameter:
        copy = nn.Parameter(_widened(x.data, least), requires_grad=False)
        copy.__dict__.update(vars(x))
        return copy
    own = x.detach() if x.requires_grad else x
    wide = _widened(own, least)
    # another class of parameter, as of a quantised weight, is more than its data
    return own.clone() if wide is own and not isinstance(x, nn.Parameter) else wide
