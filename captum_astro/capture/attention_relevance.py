"""The relevance of every attention map, handed over as it arrives, last layer first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from captum_astro.capture.guard import undisturbed
from captum_astro.capture.relevance_rules import Relevance
from captum_astro.capture.walk import Seed
from captum_astro.functional.attention import widen
from captum_astro.layouts.base import Layout
from captum_astro.layouts.structure import AttentionBranch

ArrivedMap = Callable[[str, int, slice, torch.Tensor], None]


def attention_relevance(
    layout: Layout,
    model: nn.Module,
    forward: Callable[[], torch.Tensor],
    seed: Callable[[torch.Tensor], Seed],
    arrived: ArrivedMap,
) -> None:
    """Run a model under the z+ rules and hand over ``R_A``, some rows at a time.

    Args:
        layout: Of the model that is explained.
        model: The module that ``forward`` runs.
        forward: Runs it.
        seed: Where relevance starts.
        arrived: Called with the layer's name, which of its softmaxes, the queries, and ``R_A`` ``(B, H, rows, n)``.
    """
    watch = _Watch(layout, arrived)
    device = next(model.parameters()).device.type
    with (
        undisturbed(model),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False),
    ):
        try:
            with Relevance(model, watch.current):
                output = forward()
        finally:
            watch.remove()
        start = seed(output.detach())
        torch.autograd.grad(output, watch.first, start.full().to(output))


class _Watch:
    """Knows which attention layer is running."""

    def __init__(self, layout: Layout, arrived: ArrivedMap) -> None:
        self._arrived = arrived
        self._running: list[list[Any]] = []
        self._thread = threading.get_ident()
        self._handles = []
        self.first = torch.empty(0)
        branches = [b for s in layout.stages for b in s.branches if isinstance(b, AttentionBranch)]
        if layout.pooling is not None:
            branches.append(layout.pooling.branch)
        for branch in branches:
            self._handles.append(branch.module.register_forward_pre_hook(partial(self._enter, branch.name)))
            self._handles.append(branch.module.register_forward_hook(self._leave, always_call=True))
        self._handles.append(layout.stages[0].stream.module.register_forward_pre_hook(self._start))

    def current(self) -> Callable[[slice, torch.Tensor], None] | None:
        """What to tell of the softmax that runs now."""
        if not self._running:
            return None
        name, count = self._running[-1]
        self._running[-1][1] += 1
        return lambda queries, relevance: self._arrived(name, count, queries, widen(relevance))

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _start(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        # relevance need not go further than the tokens: a leaf, as nothing before it asked for a gradient
        if threading.get_ident() == self._thread:
            self.first = arguments[0]
            if not self.first.requires_grad:
                self.first.requires_grad_(True)

    def _enter(self, name: str, module: nn.Module, arguments: Any) -> None:
        if threading.get_ident() == self._thread:
            self._running.append([name, 0])

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if threading.get_ident() == self._thread and self._running:
            self._running.pop()
