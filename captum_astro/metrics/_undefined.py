"""Why a metric has no value for a sample: inputs that leave it nothing to be right or wrong about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from captum_astro.metrics.declaration import Given, Metric

_LOGITS = ("logits", "positive_logits", "negative_logits", "blurred_positive_logits", "blurred_negative_logits")


def reasons(metric: Metric, given: Given, count: int) -> list[str | None]:
    """For each sample why the metric has no value, None if it has one.

    Args:
        metric: The metric.
        given: Its inputs.
        count: The number of samples.
    """
    found: list[str | None] = [None] * count

    def mark(bad: torch.Tensor, why: str) -> None:
        for i in bad.nonzero().flatten().tolist():
            found[i] = found[i] or why

    if not metric.of_model:
        mark(~finite(given.maps), "the map holds NaN or infinite values")
    if "human_maps" in metric.needs:
        mark(~finite(given.human_maps), "the human map holds NaN or infinite values")
        mark(constant(given.human_maps), "the human map is constant")
    if "masks" in metric.needs and not metric.of_model:
        for value, part in ((1, "object"), (0, "background")):
            mark(~(given.masks == value).flatten(1).any(1), f"the mask has no {part}")
    for need in _LOGITS:
        if need in metric.needs:
            logits = getattr(given, need)
            mark(~finite(logits), "the model's output holds NaN or infinite values")
            mark(torch.full((count,), logits.shape[-1] < 2), "the model has only one class")
    if metric.constant is not None and metric.constant != metric.constant:
        mark(constant(given.maps), "the map is constant")
    return found


def usable(given: Given) -> Given:
    """The same inputs with zeros for maps that are not finite, so that the others of the batch have a value."""
    wrong = {
        name: ~finite(vars(given)[name])
        for name in ("maps", "human_maps")
        if isinstance(vars(given).get(name), torch.Tensor)
    }
    if not any(bad.any() for bad in wrong.values()):
        return given
    known = {name: value for name, value in vars(given).items() if not name.startswith("_")}
    for name, bad in wrong.items():
        known[name] = known[name].masked_fill(bad.view(-1, *[1] * (known[name].ndim - 1)), 0)
    return type(given)(**known)


def finite(values: torch.Tensor) -> torch.Tensor:
    """``(B,)``: which samples hold neither NaN nor infinite values."""
    return values.isfinite().reshape(len(values), -1 if len(values) else 0).all(1)


def constant(maps: torch.Tensor) -> torch.Tensor:
    """``(B,)``: which maps have one value everywhere."""
    flat = maps.flatten(1)
    return (flat == flat[:, :1]).all(1)
