"""Hooks and a function mode that write down one forward pass, stage by stage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from captum_astro.capture.operations import DROPOUT, MATMUL, SOFTMAX
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, compose, inverse_deviation, spots
from captum_astro.functional.astromorphic import astromorphic_attention
from captum_astro.functional.astromorphic_effective import effective_attention
from captum_astro.functional.attention import Attention, AttentionMap, FusedCall, Given
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Measured, Modulated, Norm, Tap


class _Seen:
    """What was seen of one attention branch so far."""

    def __init__(self) -> None:
        self.maps: list[AttentionMap] = []
        self.value: torch.Tensor | None = None
        self.output: torch.Tensor | None = None
        self.constant: torch.Tensor | None = None


class Recorder(TorchFunctionMode):
    """Records attention, residual streams and feed-forward outputs while a model runs, on this thread only.

    ``F.scaled_dot_product_attention`` is seen as it is called, so fused attention stays on. Attention that is
    written out (a softmax, perhaps dropout, a matrix product) is seen too, at the cost of keeping its map.

    Args:
        layout: Of the model that will be run.
        gradient_from: The stage at whose residual stream the gradient starts; None for a pass without gradients.
        keep_gradients: Keep the gradients at the residual streams after that, as they arrive.
    """

    def __init__(self, layout: Layout, gradient_from: int | None, keep_gradients: bool = False) -> None:
        super().__init__()
        self.layout = layout
        self.stages = layout.stages
        self.streams: dict[int, torch.Tensor] = {}
        self.summed: dict[int, torch.Tensor] = {}
        self.final: torch.Tensor | None = None
        self.stream_gradients: dict[int, torch.Tensor] = {}
        self._keep_gradients = keep_gradients
        self.image_size: tuple[int, int] | None = None
        self.inputs = torch.empty(0)
        self._gradient_from = gradient_from
        self._seen: dict[int, _Seen] = {}
        self._feed_forward: dict[int, torch.Tensor] = {}
        self._statistics: dict[int, torch.Tensor | Measured] = {}
        self._read: dict[int, torch.Tensor] = {}
        self.pooled: dict[str, torch.Tensor] = {}
        self._current: list[AttentionBranch] = []
        self._mixed: torch.Tensor | None = None
        self._handles: list[RemovableHandle] = []
        self._thread = threading.get_ident()

    def __enter__(self) -> Recorder:
        try:
            self._install()
        except BaseException:
            self._remove()
            raise
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._current:
            if func is F.scaled_dot_product_attention:
                call = FusedCall.of(*args, **kwargs)
                self._seen_attention(call.map, call.value, result)
            elif func is astromorphic_attention:
                self._astromorphic(result, *args, **kwargs)
            elif func in SOFTMAX or (func in DROPOUT and args[0] is self._mixed):
                self._mixed = result
            elif func in MATMUL and args[0] is self._mixed and self._mixed is not None:
                self._seen_attention(Given(self._mixed.detach()), args[1], result)
                self._mixed = None
        return result

    def attention(self, branch: AttentionBranch, stream: torch.Tensor) -> AttentionRecord:
        """What was seen of an attention branch; without its gradient yet.

        Raises:
            UnsupportedModelError: If it ran another number of softmaxes than the layout says.
        """
        seen, weights = self._seen.get(id(branch), _Seen()), branch.weights()
        if len(seen.maps) != len(weights) or seen.value is None:
            raise UnsupportedModelError(
                f"{branch.name} ({type(branch.module).__name__}) ran {len(seen.maps)} visible softmax attentions where "
                f"{len(weights)} was expected. It must call F.scaled_dot_product_attention, or softmax and a "
                f"matrix product on (batch, heads, queries, keys), once in a forward pass."
            )
        statistics = [self._statistics[id(step)] for step in branch.steps if isinstance(step, Norm | Modulated)]
        attention = Attention(tuple(seen.maps), weights, seen.value, seen.constant)
        record = AttentionRecord(branch, stream, attention, None, statistics)
        record.read = self._read.get(id(branch))
        values = self._statistics.get(id(branch.modulated_values))
        record.values = values if isinstance(values, Measured) else None
        return record

    def heads_output(self, branch: AttentionBranch) -> torch.Tensor:
        """The tensor at which the heads' outputs receive their gradient."""
        output = self._seen[id(branch)].output
        assert output is not None
        return output

    def feed_forward(self, branch: FeedForwardBranch, stream: torch.Tensor) -> FeedForwardRecord:
        """What was seen of a feed-forward branch."""
        output = self._feed_forward[id(branch)]
        out = compose(branch.steps, [], output[:, None])
        output = output if out.matrix is None else output @ out.matrix.to(output.dtype)
        if out.constant is not None:
            output = output + out.constant
        return FeedForwardRecord(branch, stream, output)

    def forget(self, branch: AttentionBranch | FeedForwardBranch) -> None:
        """Free what was seen of a branch."""
        self._seen.pop(id(branch), None)
        self._feed_forward.pop(id(branch), None)

    def clear(self) -> None:
        """Free everything: no tensor with a graph may outlive the pass."""
        for held in (
            self.streams,
            self.summed,
            self.stream_gradients,
            self._seen,
            self._feed_forward,
            self._statistics,
            self._read,
            self.pooled,
        ):
            held.clear()
        self._mixed = self.final = None

    def _install(self) -> None:
        layout = self.layout
        self._hook_pre(layout.model, self._note_size)
        for index, stage in enumerate(self.stages):
            self._tap(stage.stream, partial(self._note_stream, index))
            if stage.summed is not None:
                self._tap(stage.summed, partial(self._note_sum, index))
            for branch in stage.branches:
                if isinstance(branch, AttentionBranch):
                    self._watch(branch)
                else:
                    self._tap(branch.output, partial(self._note_output, branch))
        self._tap(layout.final_stream, partial(self._note_stream, len(self.stages)))
        if layout.pooling is not None:
            self._watch(layout.pooling.branch)
            self._tap(layout.pooling.pooled, partial(self._note_pooled, "pooled"))
        if layout.pooled is not None:
            for tap, name in zip(layout.pooled, ("normalised", "pooled"), strict=True):
                self._tap(tap, partial(self._note_pooled, name))

    def _watch(self, branch: AttentionBranch) -> None:
        self._hook_pre(branch.module, lambda _: self._current.append(branch))
        handle = branch.module.register_forward_hook(self._leave, always_call=True)
        self._handles.append(handle)
        self._tap(branch.reads or Tap(branch.module), partial(self._note_read, branch))
        for step in (*branch.steps, branch.modulated_values):
            if isinstance(step, Norm | Modulated):
                self._tap(Tap(step.module), partial(self._note_statistics, step))

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._here() and self._current:
            self._current.pop()
            self._mixed = None

    def _note_size(self, x: Any) -> None:
        if isinstance(x, torch.Tensor) and x.ndim == (2 if self.layout.reads_text else 4):
            self.inputs = x.detach()
            self.image_size = (1, x.shape[1]) if self.layout.reads_text else (x.shape[-2], x.shape[-1])

    def _note_output(self, branch: FeedForwardBranch, x: torch.Tensor) -> None:
        self._feed_forward[id(branch)] = x.detach()

    def _note_read(self, branch: AttentionBranch, x: torch.Tensor) -> None:
        if x.ndim == 3:
            self._read[id(branch)] = x.detach()[:, spots(x.shape[1])]

    def _note_pooled(self, name: str, x: torch.Tensor) -> None:
        self.pooled[name] = x.detach()

    def _note_statistics(self, step: Norm | Modulated, x: torch.Tensor) -> None:
        x = x.detach()
        found = step.measure(x) if isinstance(step, Modulated) else inverse_deviation(step.module, x)
        self._statistics[id(step)] = found

    def _note_sum(self, index: int, x: torch.Tensor) -> None:
        self.summed[index] = x.detach()

    def _note_stream(self, index: int, x: torch.Tensor) -> None:
        if index == self._gradient_from and not x.requires_grad:
            x.requires_grad_(True)  # a leaf: nothing before it asked for a gradient
        elif self._keep_gradients and x.requires_grad:
            x.register_hook(partial(self.stream_gradients.__setitem__, index))
        self.streams[index] = x.detach()
        if index == len(self.stages):
            self.final = x

    def _astromorphic(self, output: torch.Tensor, *args: Any, chunk: int | None = None, **kwargs: Any) -> None:
        given = [x.detach() if isinstance(x, torch.Tensor) else x for x in args]
        attention = effective_attention(*given, **kwargs)
        self._seen_attention(attention, attention.values, output)
        if attention.per_channel:
            self._seen[id(self._current[-1])].constant = attention.constant.repeat_interleave(output.shape[3], 1)

    def _seen_attention(self, attention: AttentionMap, value: torch.Tensor, output: torch.Tensor) -> None:
        if output.ndim != 4 or value.ndim != 4:
            return
        seen = self._seen.setdefault(id(self._current[-1]), _Seen())
        seen.maps.append(attention)
        seen.value = value.detach()
        if seen.output is None:  # differential attention adds its first softmax with factor 1
            seen.output = output

    def _tap(self, tap: Tap, use: Callable[[torch.Tensor], None]) -> None:
        if tap.at == "input":
            self._hook_pre(tap.module, use)
            return

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._here():
                use(output)

        self._handles.append(tap.module.register_forward_hook(after))

    def _hook_pre(self, module: nn.Module, use: Callable[[Any], None]) -> None:
        def before(module: nn.Module, inputs: Any) -> None:
            if self._here() and inputs:
                use(inputs[0])

        self._handles.append(module.register_forward_pre_hook(before))

    def _here(self) -> bool:
        return threading.get_ident() == self._thread

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
