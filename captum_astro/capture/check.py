"""The public identity check: is a model's layout correct?"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import torch
from captum._utils.common import _format_additional_forward_args
from torch import nn

from captum_astro.capture.agreement import stage_name
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture
from captum_astro.capture.guard import private
from captum_astro.capture.identity import identity_error, keys_error, sources_error
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, Pass, StageRecord
from captum_astro.capture.target import LargestOutput
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.astromorphic_effective import EffectiveAttention
from captum_astro.functional.attention import Given, Softmax
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.steps import Activation, Modulated, Norm

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 0.1
_WIDTH = 80  # characters of a line


@dataclass(frozen=True)
class CheckedStage:
    """One residual add: what was recorded, and how well it reconstructs what the model computed.

    Attributes:
        name: The branches' paths.
        captured: Description of what was recorded.
        error: The largest difference, relative to the largest entry of what is added.
        approximate: The rules by which a part is carried that cannot be carried exactly; empty if there is none.
    """

    name: str
    captured: str
    error: float
    approximate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The report of `check`; prints as a table.

    Attributes:
        model: The class of the explained model.
        tokens: The number of tokens.
        prefix: How many of them are prefix tokens.
        grid: Rows and columns of the patch tokens.
        readout: Description of what the model classifies.
        stages: One entry per residual add, in order.
        tolerance: The largest error that counts as a match, for the model's dtype.
        problem: Any other disagreement with the layout; None if there is none.
        approximate: What the methods that propagate a row do not carry exactly, and by what rule; empty if nothing.
    """

    model: str
    tokens: int
    prefix: int
    grid: tuple[int, int]
    readout: str
    stages: tuple[CheckedStage, ...]
    tolerance: float
    problem: str | None
    approximate: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every layer was reconstructed and the read-out matches."""
        return self.problem is None and all(stage.error <= self.tolerance for stage in self.stages)

    def __str__(self) -> str:
        lines = _wrapped(
            f"{self.model}: {self.tokens} tokens = {self.prefix} prefix + {self.grid[0]} x {self.grid[1]} patches; "
            f"read-out: {self.readout}"
        )
        rows = [(stage, self._verdict(stage)) for stage in self.stages]
        name, seen = (
            max(map(len, texts)) for texts in ([s.name for s in self.stages], [s.captured for s in self.stages])
        )
        wide = 2 + name + 2 + seen + 2 + 8 + 2 + max(len(verdict) for _, verdict in rows) > _WIDTH
        for stage, verdict in rows:
            if wide:
                lines += [
                    f"  {stage.name}",
                    *_wrapped(f"    {stage.captured}", 6),
                    f"      {stage.error:.1e}  {verdict}",
                ]
            else:
                lines.append(f"  {stage.name:<{name}}  {stage.captured:<{seen}}  {stage.error:8.1e}  {verdict}")
        if self.problem is not None:
            lines += _wrapped(self.problem)
        for part in self.approximate:
            lines += _wrapped(f"approximate: {part}")
        lines.append(f"{'passed' if self.ok else 'FAILED'} at {self.tolerance:.0e}")
        return "\n".join(lines)

    def _verdict(self, stage: CheckedStage) -> str:
        if stage.error > self.tolerance:
            return "NOT REBUILT"
        return "approximate" if stage.approximate else "exact"


def _wrapped(text: str, indent: int = 2) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def check(model: nn.Module, inputs: torch.Tensor, additional_forward_args: Any = None) -> Report:
    """Compare, for every layer, what is recorded with what the model computes: ``E_next = E + sum_h A_h E~_h + bias``.

    Run it on your own model after registering a layout, preferably in float64: ``check(model.double(), x.double())``.

    Args:
        model: A model with a layout, or a wrapper around one.
        inputs: Images ``(B, C, H, W)``, token ids ``(B, n)`` or lists of patches ``(B, n, ...)``.
        additional_forward_args: Passed to the model after the inputs; lists of patches must have no padding.

    Returns:
        A report, with ``ok`` and one entry per layer.

    Raises:
        UnsupportedModelError: If the model has no layout, or a layer could not be recorded at all.
        ValueError: If lists of patches come without their arguments, or with padding.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> check(model, torch.rand(1, 3, 224, 224)).ok
        True
    """
    with private(model) as replica:
        layout = layout_for(replica.model).reading(inputs)
        arguments = _format_additional_forward_args(additional_forward_args) or ()
        _check_padding(layout, arguments)
        call = Call(replica.model, inputs.detach(), LargestOutput(), arguments, layout)
        return _report(layout, capture(call, Wanted(verify=False)))


def _check_padding(layout: Layout, arguments: tuple[Any, ...]) -> None:
    lists = layout.patch_lists
    if lists is None:
        return
    valid = dict(zip(lists.arguments, arguments, strict=False)).get(lists.valid)
    if valid is None or not valid.all():
        raise ValueError(
            f"Lists of patches are checked without padding: pass additional_forward_args="
            f"({', '.join(lists.arguments)}), with {lists.valid} True everywhere."
        )


def _report(layout: Layout, passed: Pass) -> Report:
    read, dtype = int((passed.readout[0] != 0).sum()), passed.stages[0].stream.dtype
    if layout.pooling is not None:
        readout = f"{type(layout.pooling.branch.module).__name__} over {read} queries"
    else:
        readout = f"mean of {read} tokens" if read > 1 else "token 0"
        if layout.votes is not None:
            readout = f"{read} tokens, of which one has the largest value of the class"
    return Report(
        type(layout.model).__name__,
        passed.stages[0].stream.shape[1],
        layout.num_prefix_tokens,
        passed.grid,
        readout,
        tuple(_checked(record) for record in passed.stages),
        _TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE),
        passed.problem,
        layout.approximate,
    )


def _checked(record: StageRecord) -> CheckedStage:
    """A stage, fully reconstructed."""
    parts = [_describe(part) for part in record.branches]
    if record.merging is not None:
        merged = record.merging.tokens.index.shape[2]
        way, alone = ("in equal shares", "at its place") if record.merging.shared else ("merged into one", "projected")
        parts.append(f"{merged} tokens {way}" if merged > 1 else f"each token {alone}")
        parts[-1] = parts[-1] if record.keeps else "instead of the stream"
    errors = [identity_error(record)]
    errors += [keys_error(x) if isinstance(x, AttentionRecord) else sources_error(x) for x in record.branches]
    merging = () if record.stage.merging is None else (record.stage.merging,)
    rules = tuple(dict.fromkeys(b.approximate for b in (*record.stage.branches, *merging) if b.approximate is not None))
    return CheckedStage(stage_name(record), " + ".join(parts), max(float(error) for error in errors), rules)


def _describe(record: AttentionRecord | FeedForwardRecord) -> str:
    if isinstance(record, FeedForwardRecord):
        mixed = record.sources
        return "feed-forward" if mixed is None else f"mixtures of {mixed.tokens.index.shape[2]} tokens"
    heads = record.attention.value.shape[1]
    first = record.attention.maps[0]
    parts = [f"{heads} heads"]
    if isinstance(first, Given):
        parts.append("explicit attention map")
    elif isinstance(first, EffectiveAttention):
        parts = [f"effective attention of {heads} {'channels' if first.per_channel else 'heads'}"]
    elif isinstance(first, Softmax) and first.bias is not None:
        parts.append("bias")
    if record.outputs is not None:
        parts.append(f"{len(record.outputs.index)} windows of {record.outputs.index.shape[1]}")
    if record.reduced is not None:
        parts.append(f"{record.reduced.tokens.index.shape[2]} tokens reduced to one key")
    if any(isinstance(step, Activation) for step in record.branch.steps):
        parts.append("activation after the heads")
    if len(record.attention.maps) > 1:
        parts.append(f"{len(record.attention.maps)} softmaxes")
    if any(isinstance(step, Norm) for step in record.branch.steps):
        parts.append("norm after the heads")
    if record.branch.modulated_values or any(isinstance(step, Modulated) for step in record.branch.steps):
        parts.append("modulated")
    return ", ".join(parts)
