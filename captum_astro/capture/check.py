"""The public identity check: does a model's layout hold?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture
from captum_astro.capture.collected import Wanted
from captum_astro.capture.identity import identity_error, stage_name
from captum_astro.capture.records import AttentionRecord, StageRecord
from captum_astro.capture.target import LargestOutput
from captum_astro.functional.astromorphic_effective import EffectiveAttention
from captum_astro.functional.attention import Given, Softmax
from captum_astro.layouts.base import layout_for
from captum_astro.layouts.structure import Modulated, Norm
from captum_astro.layouts.unwrap import unwrapped

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 0.1


@dataclass(frozen=True)
class CheckedStage:
    """One residual add: what was captured, and how well it rebuilds what the model computed.

    Attributes:
        name: The branches' paths.
        captured: In words.
        error: The largest difference, relative to the largest entry of what is added.
    """

    name: str
    captured: str
    error: float


@dataclass(frozen=True)
class Report:
    """What `check` found; prints as a table.

    Attributes:
        model: The class that is explained.
        tokens: How many there are.
        prefix: How many of them are prefix tokens.
        grid: Rows and columns of the patch tokens.
        readout: What the model classifies, in words.
        stages: One entry for each residual add, in order.
        tolerance: The largest error that counts as rebuilt, for the model's dtype.
        problem: What else does not agree with the layout; None if nothing.
    """

    model: str
    tokens: int
    prefix: int
    grid: tuple[int, int]
    readout: str
    stages: tuple[CheckedStage, ...]
    tolerance: float
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether every layer was rebuilt and the read-out holds."""
        return self.problem is None and all(stage.error <= self.tolerance for stage in self.stages)

    def __str__(self) -> str:
        width = max(len(stage.name) for stage in self.stages)
        seen = max(len(stage.captured) for stage in self.stages)
        lines = [
            f"{self.model}: {self.tokens} tokens = {self.prefix} prefix + {self.grid[0]} x {self.grid[1]} patches; "
            f"read-out: {self.readout}",
            *(
                f"  {stage.name:<{width}}  {stage.captured:<{seen}}  {stage.error:8.1e}  "
                f"{'ok' if stage.error <= self.tolerance else 'NOT REBUILT'}"
                for stage in self.stages
            ),
        ]
        if self.problem is not None:
            lines.append(self.problem)
        lines.append(f"{'passed' if self.ok else 'FAILED'} at {self.tolerance:.0e}")
        return "\n".join(lines)


def check(model: nn.Module, inputs: torch.Tensor) -> Report:
    """Compare, for every layer, what is captured with what the model computes: ``E_next = E + sum_h A_h E~_h + bias``.

    Run it on your own model after registering a layout, in float64 if you can: ``check(model.double(), x.double())``.

    Args:
        model: A model with a layout, or a wrapper of one.
        inputs: Images ``(B, C, H, W)`` or token ids ``(B, n)`` that the model takes.

    Returns:
        A report, with ``ok`` and an entry for each layer.

    Raises:
        UnsupportedModelError: If the model has no layout, or a layer could not be captured at all.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> check(model, torch.rand(1, 3, 224, 224)).ok
        True
    """
    model = unwrapped(model)
    layout = layout_for(model)
    passed = capture(Call(model, inputs.detach(), LargestOutput(), layout=layout), Wanted(verify=False))
    read, dtype = int((passed.readout[0] != 0).sum()), passed.stages[0].stream.dtype
    if layout.pooling is not None:
        readout = f"{type(layout.pooling.branch.module).__name__} over {read} queries"
    else:
        readout = f"mean of {read} tokens" if read > 1 else "token 0"
    return Report(
        type(layout.model).__name__,
        passed.stages[0].stream.shape[1],
        layout.num_prefix_tokens,
        passed.grid,
        readout,
        tuple(_checked(record) for record in passed.stages),
        _TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE),
        passed.problem,
    )


def _checked(record: StageRecord) -> CheckedStage:
    """A stage, rebuilt in full."""
    parts = [_describe(part) if isinstance(part, AttentionRecord) else "feed-forward" for part in record.branches]
    if record.merging is not None:
        parts.append(f"{record.merging.tokens.index.shape[2]} tokens merged into one")
    return CheckedStage(stage_name(record), " + ".join(parts), float(identity_error(record)))


def _describe(record: AttentionRecord) -> str:
    heads = record.attention.value.shape[1]
    first = record.attention.maps[0]
    parts = [f"{heads} heads"]
    if isinstance(first, Given):
        parts.append("map as written out")
    elif isinstance(first, EffectiveAttention):
        parts = [f"effective attention of {heads} {'channels' if first.per_channel else 'heads'}"]
    elif isinstance(first, Softmax) and first.bias is not None:
        parts.append("bias")
    if record.outputs is not None:
        parts.append(f"{len(record.outputs.index)} windows of {record.outputs.index.shape[1]}")
    if len(record.attention.maps) > 1:
        parts.append(f"{len(record.attention.maps)} softmaxes")
    if any(isinstance(step, Norm) for step in record.branch.steps):
        parts.append("norm after the heads")
    if record.branch.modulated_values or any(isinstance(step, Modulated) for step in record.branch.steps):
        parts.append("modulated")
    return ", ".join(parts)
