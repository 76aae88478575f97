"""Deleting the tokens of a text, most or least important first: what the class loses.

Tokens are deleted, not replaced: the text becomes shorter, and the others keep their order. Of equal values the later
token is the more important one, as `captum_astro.metrics.removal.ranks` has it for pixels.

Source: DeYoung et al., "ERASER: A Benchmark to Evaluate Rationalized NLP Models", ACL 2020, for comprehensiveness and
sufficiency over the top 1, 5, 10, 20 and 50 % of the tokens; a share of the tokens is rounded up here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from captum_astro.metrics.declaration import RANDOM_MAPS, CurvePlot, Given, Metric, Need, Scores
from captum_astro.metrics.perturbation import aopc, area_under_curve, class_probability
from captum_astro.metrics.registry import register
from captum_astro.metrics.removal import removed_counts

PERCENT = (1, 5, 10, 20, 50)


def token_places(attributions: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The place of every token in the order from most to least important.

    Args:
        attributions: ``(B, n)``, of any scale; those of padding do not matter.
        lengths: ``(B,)``, the tokens of each text, from 1 to n; padding follows them.

    Returns:
        ``(B, n)`` int64: 0 for the most important token; n for padding.

    Raises:
        ValueError: If the shapes do not match, a length is out of range, or a token's value is NaN or infinite.

    Example:
        >>> token_places(torch.tensor([[0.1, 0.7, 0.3, 9.0]]), torch.tensor([3]))
        tensor([[2, 0, 1, 4]])
    """
    if attributions.ndim != 2 or lengths.shape != attributions.shape[:1]:
        raise ValueError(
            f"attributions (B, n) and lengths (B,) are needed, not {(*attributions.shape,)} and {(*lengths.shape,)}."
        )
    n = attributions.shape[1]
    lengths = lengths.to(attributions.device)
    if ((lengths < 1) | (lengths > n)).any():
        raise ValueError(f"lengths: from 1 to {n}, the number of attributions of each text, not {lengths.tolist()}.")
    token = torch.arange(n, device=attributions.device) < lengths[:, None]
    if not attributions[token].isfinite().all():
        raise ValueError("attributions: a token's value is NaN or infinite, and has no place in an order.")
    values = attributions.masked_fill(~token, -torch.inf) + 0  # -0 becomes 0, which some sorts treat as different
    order = n - 1 - values.flip(1).argsort(dim=1, descending=True, stable=True)
    places = torch.empty_like(order).scatter_(1, order, torch.arange(n, device=order.device).expand_as(order))
    return places.masked_fill(~token, n)


def token_removals(attributions: torch.Tensor, lengths: torch.Tensor, steps: int = 20) -> dict[Need, torch.Tensor]:
    """Which tokens are deleted for each metric, from the whole text on.

    Args:
        attributions: ``(B, n)``.
        lengths: ``(B,)``, the tokens of each text.
        steps: The number of equal steps of the curves.

    Returns:
        Bool ``(B, L, n)``, True for what is deleted, always for padding, by the name of the logits that a model then
        gives: ``without_logits`` and ``only_logits`` (the whole text, then without the top `PERCENT` of the tokens or
        with only these, L = 6), ``most_first_logits`` and ``least_first_logits`` (0 % to 100 %, L = steps + 1).

    Raises:
        ValueError: As for `token_places` and `captum_astro.metrics.removal.removed_counts`.

    Example:
        >>> found = token_removals(torch.tensor([[0.1, 0.7, 0.3]]), torch.tensor([3]), steps=3)
        >>> found["most_first_logits"][0].int().tolist()
        [[0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]]
    """
    places = token_places(attributions, lengths)[:, None]
    lengths = lengths.to(places.device)[:, None]
    nothing = torch.zeros_like(lengths)
    top = -(-lengths * torch.tensor(PERCENT, device=places.device) // 100)
    steady = torch.stack([removed_counts(int(length), steps) for length in lengths]).to(places.device)

    def most_first(counts: torch.Tensor) -> torch.Tensor:
        return (places < counts[..., None]) | (places == places.shape[2])

    def least_first(counts: torch.Tensor) -> torch.Tensor:
        return places >= (lengths - counts)[..., None]

    return {
        "without_logits": most_first(torch.cat([nothing, top], 1)),
        "only_logits": least_first(torch.cat([nothing, lengths - top], 1)),
        "most_first_logits": most_first(steady),
        "least_first_logits": least_first(steady),
    }


def shortened(token_ids: torch.Tensor, removed: torch.Tensor, padding: int = 0) -> torch.Tensor:
    """The texts without the deleted tokens.

    Args:
        token_ids: ``(B, n)``.
        removed: Bool ``(B, L, n)``, True for what is deleted, and for padding.
        padding: The id of padding.

    Returns:
        ``(B, L, n)``: the tokens that are left, in their order, followed by padding.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        >>> shortened(torch.tensor([[5, 6, 7]]), torch.tensor([[[False, True, False]]]))
        tensor([[[5, 7, 0]]])
    """
    if token_ids.ndim != 2 or removed.ndim != 3 or (*removed.shape[::2],) != (*token_ids.shape,):
        raise ValueError(
            f"token_ids (B, n) and removed (B, L, n) are needed, not {(*token_ids.shape,)} and {(*removed.shape,)}."
        )
    order = removed.byte().argsort(dim=2, stable=True)
    moved = token_ids[:, None].expand(removed.shape).gather(2, order)
    return moved.masked_fill(removed.gather(2, order), padding)


def comprehensiveness(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The probability that the class loses without the most important tokens: the mean over their shares.

    Args:
        logits: ``(B, L, C)``: of the whole text first, then without the top shares of its tokens.
        classes: ``(B,)``, the class explained.

    Returns:
        ``(B,)`` float64, from -1 to 1, higher is better.

    Raises:
        ValueError: If the shapes do not match, or a class is not one of the model's.

    Example:
        >>> whole, half, none = [0.0, 9.0], [0.0, 0.0], [9.0, 0.0]
        >>> comprehensiveness(torch.tensor([[whole, half, none]]), torch.tensor([1])).round(decimals=3)
        tensor([0.7500], dtype=torch.float64)
    """
    return aopc(class_probability(logits, classes))


def sufficiency(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The probability that the class loses when only the most important tokens are kept: the mean over their shares.

    Args:
        logits: ``(B, L, C)``: of the whole text first, then of the top shares of its tokens alone.
        classes: ``(B,)``, the class explained.

    Returns:
        ``(B,)`` float64, from -1 to 1, lower is better.

    Raises:
        ValueError: If the shapes do not match, or a class is not one of the model's.

    Example:
        >>> whole, top = [0.0, 9.0], [0.0, 8.0]
        >>> sufficiency(torch.tensor([[whole, top]]), torch.tensor([1])).round(decimals=4)
        tensor([0.0002], dtype=torch.float64)
    """
    return aopc(class_probability(logits, classes))


def _area(logits: torch.Tensor, classes: torch.Tensor) -> Scores:
    curve = class_probability(logits, classes)
    return Scores(area_under_curve(curve), curve)


def _declare(name: str, compute: Callable[[Given], torch.Tensor | Scores], need: Need, **options: Any) -> None:
    same: dict[str, Any] = {"kind": "text", "percent": True, "chance": RANDOM_MAPS, "of_text": True}
    register(Metric(name, compute, needs=("classes", need), **same | options))


_declare(
    "comprehensiveness",
    lambda given: comprehensiveness(given.without_logits, given.classes),
    "without_logits",
    meaning="Probability that the class loses without the top 1, 5, 10, 20 and 50 % of the tokens, on average.",
)
_declare(
    "sufficiency",
    lambda given: sufficiency(given.only_logits, given.classes),
    "only_logits",
    direction=-1,
    meaning="Probability that the class loses when only the top 1, 5, 10, 20 and 50 % of the tokens are kept.",
)
_declare(
    "most first",
    lambda given: _area(given.most_first_logits, given.classes),
    "most_first_logits",
    direction=-1,
    plot=CurvePlot("Most important tokens deleted first", "probability, %", "tokens deleted, %"),
    meaning="Area under the class's probability as tokens are deleted, the most important first.",
)
_declare(
    "least first",
    lambda given: _area(given.least_first_logits, given.classes),
    "least_first_logits",
    plot=CurvePlot("Least important tokens deleted first", "probability, %", "tokens deleted, %"),
    meaning="Area under the class's probability as tokens are deleted, the least important first.",
)
