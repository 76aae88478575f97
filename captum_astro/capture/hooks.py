"""Temporary hooks that see only one explanation's calls of a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from captum_astro.capture.explaining import current
from captum_astro.layouts.steps import Tap

Use = Callable[[torch.Tensor], "torch.Tensor | None"]


class Hooks(contextlib.ExitStack):
    """Hooks on modules, for as long as the context is open.

    Calls by other threads, or by an explanation inside a hook, are ignored. A callback receives a tensor. If it
    returns one, that replaces the tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self._explanation = current()

    def tap(self, tap: Tap, use: Use) -> None:
        """Call back with a tap's tensor."""
        if tap.at == "input":
            self.before(tap.module, use, tap.number)
        else:
            self.after(tap.module, use)

    def before(self, module: nn.Module, use: Use, tensor: int = 0) -> None:
        """Call back with the first tensor that a module receives, positional or keyword, or with a later one."""
        self.callback(module.register_forward_pre_hook(partial(self._given, use, tensor), with_kwargs=True).remove)

    def after(self, module: nn.Module, use: Use) -> None:
        """Call back with a module's output, if it is a single tensor."""
        self.callback(module.register_forward_hook(partial(self._returned, use)).remove)

    def finally_(self, module: nn.Module, use: Callable[[], None]) -> None:
        """Call back after a module has run, even after an error."""
        self.callback(module.register_forward_hook(partial(self._left, use), always_call=True).remove)

    def _given(self, use: Use, tensor: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        given = {**dict(enumerate(args)), **kwargs}
        tensors = [place for place, x in given.items() if isinstance(x, torch.Tensor)]
        if current() != self._explanation or tensor >= len(tensors):
            return None
        new = use(given[tensors[tensor]])
        if new is None:
            return None
        given[tensors[tensor]] = new
        return tuple(given.pop(number) for number in range(len(args))), given

    def _returned(self, use: Use, module: nn.Module, args: Any, output: Any) -> torch.Tensor | None:
        if current() != self._explanation or not isinstance(output, torch.Tensor):
            return None
        return use(output)

    def _left(self, use: Callable[[], None], module: nn.Module, args: Any, output: Any) -> None:
        if current() == self._explanation:
            use()
