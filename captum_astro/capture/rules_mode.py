"""The mode that dispatches a model's operations to propagation rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from captum_astro.capture.explaining import current
from captum_astro.capture.operations import IN_PLACE, RMS, flattened, is_composed, needs_grad
from captum_astro.capture.settled import is_adapter
from captum_astro.layouts.errors import UnsupportedModelError


class Rules(TorchFunctionMode):
    """A mode that passes every operation to `operation`, and composed modules to `composed`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._inside = 0
        self._handles: list[RemovableHandle] = []
        self._explanation = current()

    def __enter__(self) -> Any:
        for module in self._model.modules():
            if isinstance(module, RMS) and type(module) not in RMS:
                raise UnsupportedModelError(f"{type(module).__name__} has no propagation rule.")
            if is_adapter(module):
                raise UnsupportedModelError(
                    f"{type(module).__name__} adds a low-rank adapter to a layer that is not linear, so relevance "
                    f"would differ from that of the merged layer. Merge it: merge_and_unload() in peft."
                )
        for module in self._model.modules():
            if type(module) in RMS or is_composed(module):
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
        if func in IN_PLACE:
            # relevance of the new content flows to its inputs
            return args[0].copy_(self.operation(IN_PLACE[func], (args[0].clone(), *args[1:]), kwargs))
        return self.operation(func, args, kwargs)

    def composed(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The output that replaces an RMS norm or an activation."""
        raise NotImplementedError

    def operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Any other operation that depends on the image."""
        raise NotImplementedError

    def _into(self, module: nn.Module, arguments: Any) -> None:
        if current() == self._explanation:
            self._inside += 1

    def _out_of(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        if current() != self._explanation:
            return None
        try:  # still inside: operations computed by the rule itself do not belong to the model
            return self.composed(module, arguments[0], output) if isinstance(output, torch.Tensor) else None
        finally:
            self._inside -= 1
