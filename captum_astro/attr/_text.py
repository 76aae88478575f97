"""Texts of one batch, each at its own length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from captum._utils.common import _format_additional_forward_args

from captum_astro.attr._inputs import select_samples
from captum_astro.layouts.base import Layout


def text_parts(
    layout: Layout, token_ids: torch.Tensor, target: Any, additional_forward_args: Any, step: int
) -> Iterator[tuple[list[int], torch.Tensor, Any, list[Any]]]:
    """Texts of equal length together, without their padding, and without what follows the explained position.

    Neither is part of what the output depends on, and methods that average over tokens must not see it.

    Args:
        layout: Of a model that reads text.
        token_ids: ``(B, n)``.
        target: Any form that Captum takes.
        additional_forward_args: As Captum takes them.
        step: At most so many at a time.

    Yields:
        Which samples, their token ids, their target, and what follows them.

    Raises:
        IndexError: If a position is out of range.
    """
    batch, longest = token_ids.shape
    extra = _format_additional_forward_args(additional_forward_args) or ()
    positions = _positions(target, batch, longest) if layout.per_position else None
    lengths = layout.lengths(token_ids) if positions is None else [position + 1 for position in positions]
    groups: dict[int, list[int]] = {}
    for sample, length in enumerate(lengths):
        groups.setdefault(length, []).append(sample)
    for length, samples in groups.items():
        for start in range(0, len(samples), step):
            part = samples[start : start + step]
            wanted = select_samples(target, part, batch)
            if positions is not None:
                given = wanted if isinstance(wanted, list) else [wanted] * len(part)
                wanted = [(length - 1, *one[1:]) for one in given]
            arguments = [select_samples(value, part, batch) for value in extra]
            yield part, token_ids[part, :length].detach(), wanted, arguments


def _positions(target: Any, batch: int, longest: int) -> list[int] | None:
    """The explained positions, from 0; None if the target is no ``(position, token id)``, which is refused later."""
    given = target if isinstance(target, list) and len(target) == batch else [target] * batch
    if not all(isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], int) for one in given):
        return None
    for position, _ in given:
        if not -longest <= position < longest:
            raise IndexError(f"target position {position} is out of range: the texts have {longest} tokens.")
    return [position % longest for position, _ in given]
