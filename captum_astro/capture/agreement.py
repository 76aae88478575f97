"""Whether a pass agrees with its layout: each stage, the read-out, and which tokens the output depends on."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from captum_astro.capture.identity import (
    identity_error,
    keys_error,
    rebuilt_attention,
    relative,
    sources_error,
    value_error,
)
from captum_astro.capture.modes import draws
from captum_astro.capture.records import FeedForwardRecord, Pass, StageRecord
from captum_astro.functional.attention import widen
from captum_astro.layouts.base import Layout

# tolerance of a reconstructed row, relative to what the stage adds, beyond which the layout is considered wrong
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}
_LOW_PRECISION_TOLERANCE = 0.25


def problem_of(passed: Pass, layout: Layout, seen: dict[str, torch.Tensor], reached: torch.Tensor | None) -> str | None:
    """The first disagreement of a pass with the layout, naming the layer; None if everything matches.

    A few rows of every recorded stage are reconstructed in every pass, so that a wrong layout never returns a map
    silently: attention for three tokens (of every window), feed-forward layers for all tokens. The values are compared
    with their weight, and the pooled vector with the read-out. Costs O(n d) per layer. Nothing is compared while
    dropout is active.

    Args:
        passed: The recorded pass.
        layout: The layout of the explained model.
        seen: The final tokens after the last norm, and the pooled vector, if the layout has taps for them.
        reached: Which final tokens the output depends on, ``(B, n)``, in a pass with gradients.
    """
    model = type(layout.model).__name__
    compared = [] if draws(layout.model) else [*_stage_errors(passed), *_readout_errors(passed, seen)]
    for (name, _, tolerance), error in zip(compared, _values(compared), strict=True):
        if not error <= tolerance:
            return (
                f"{name} is something other than the layout says (relative error {error:.1e}). The layout "
                f"of {model} does not hold for this model; captum_astro.check compares every layer."
            )
    if reached is not None:
        unread = (reached & ~_read(passed)).any(0).nonzero().flatten().tolist()
        if unread:
            return (
                f"The output depends on final tokens {unread[:5]}, which the layout of {model} does not read. "
                f"Override its readout."
            )
    return None


Error = tuple[str, torch.Tensor, float]


def _values(errors: list[Error]) -> list[float]:
    """The errors as numbers, read at once: a GPU is waited for only here."""
    if not errors:
        return []
    device = errors[0][1].device
    return torch.stack([error.to(device, torch.float32) for _, error, _ in errors]).tolist()


def _stage_errors(passed: Pass) -> Iterator[Error]:
    for record in passed.stages:
        if len(record.branches) < len(record.stage.branches):  # of a block that is not requested
            continue
        name, heads, dtype = stage_name(record), record.attentions, record.stream.dtype
        for branch in record.branches:
            if isinstance(branch, FeedForwardRecord) and branch.sources is not None:
                yield f"The mixture of tokens in {branch.branch.name}", sources_error(branch), _tolerance(dtype)
        if not heads and record.merging is None:
            yield name, identity_error(record), _tolerance(dtype)
            continue
        lowest = _lowest(dtype, *(head.attention.value.dtype for head in heads))
        yield name, identity_error(record, few=True), _tolerance(lowest)
        for head in heads:
            yield f"The value projection of {head.branch.name}", value_error(head), _tolerance(lowest)
            if head.reduced is not None:
                yield f"The reduction to the keys of {head.branch.name}", keys_error(head), _tolerance(lowest)


def _readout_errors(passed: Pass, seen: dict[str, torch.Tensor]) -> Iterator[Error]:
    final, pooling = passed.stages[-1].following, passed.pooling
    if pooling is not None:
        lowest, name = _lowest(final.dtype, pooling.attention.value.dtype), pooling.branch.name
        yield f"The value projection of {name}", value_error(pooling), _tolerance(lowest)
        if "pooled" in seen:
            added, found = rebuilt_attention(pooling), widen(seen["pooled"])
            yield name, relative(found, added, added, lowest), _tolerance(lowest)
    elif {"normalised", "pooled"} <= set(seen):
        normalised, found = widen(seen["normalised"]), widen(seen["pooled"])
        expected = torch.einsum("bn,bnd->bd", passed.readout.to(normalised), normalised)
        if found.shape == expected.shape:
            yield "The pooled vector", relative(found, expected, expected, final.dtype), _tolerance(final.dtype)


def _read(passed: Pass) -> torch.Tensor:
    """Which final tokens are read according to the layout, ``(B, n)``."""
    if passed.pooling is None:
        return passed.readout != 0
    everything = torch.ones_like(passed.stages[-1].following[..., 0])
    sources = passed.pooling.sources
    return (everything if sources is None else sources.scatter(sources.gather(everything))) > 0


def stage_name(record: StageRecord) -> str:
    """The paths of a stage's branches."""
    merging = () if record.stage.merging is None else (record.stage.merging,)
    return " + ".join(part.name for part in (*merging, *record.stage.branches))


def _tolerance(dtype: torch.dtype) -> float:
    return _TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE)


def _lowest(*dtypes: torch.dtype) -> torch.dtype:
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
