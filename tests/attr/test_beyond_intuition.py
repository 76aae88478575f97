"""Beyond Intuition against full matrices, entry by entry, on every family that it is defined for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_astro import BeyondIntuition, UnsupportedModelError
from tests import twins
from tests.attr import reference
from tests.families import FAMILIES, build, images

STEPS = 3
POOLED = [name for name in FAMILIES if "_pooling" in name]
SCALED = ["scale_norm", "post_norm", "eva02", "eva_post_norm", "relative_position_post_norm", "differential",
          "differential_parallel"]  # fmt: skip
DEFINED = [name for name in FAMILIES if name not in [*POOLED, "parallel_things"]]
CASES = [(form, name) for form in ("tokens", "heads") for name in DEFINED if form == "heads" or name not in SCALED]


def matrix(stream: torch.Tensor, part: Any, form: str) -> torch.Tensor:
    """One layer's U."""
    heads, n, _ = part.attention.shape
    weights, ratios = [1 / heads] * heads, [1.0] * n
    if form == "heads":
        sizes = [float((part.attention[h].T @ part.gradient[h]).abs().mean()) for h in range(heads)]
        weights = [size / sum(sizes) for size in sizes]
    else:
        ratios = [float(part.vectors[True].detach()[:, j].sum(0).norm() / stream[j].detach().norm()) for j in range(n)]
    attention, update = part.attention.tolist(), torch.eye(n, dtype=stream.dtype)
    for i in range(n):
        for j in range(n):
            update[i, j] += sum(weights[h] * attention[h][i][j] for h in range(heads)) * ratios[j]
    return update


def attended(taken: twins.Taken) -> list[tuple[torch.Tensor, Any]]:
    return [(stream, part) for stream, parts in taken.stages for part in parts if part.attention is not None]


@pytest.mark.parametrize(("form", "name"), CASES)
@pytest.mark.one_in(2)
def test_beyond_intuition(form: str, name: str) -> None:
    model, taken, readout = reference.taken(name)
    n = len(readout)
    product = torch.eye(n, dtype=torch.float64)
    for stream, part in attended(taken):
        product = matrix(stream, part, form) @ product
    slopes = []
    for step in range(STEPS):
        darker = images(name, 1) * step / (STEPS - 1)
        slopes.append(attended(twins.take(model, darker, reference.TARGET, "logit"))[-1][1].gradient)
    mean = sum(slopes) / STEPS
    expected = torch.zeros(n, dtype=torch.float64)
    for q in readout.nonzero().flatten().tolist():
        for j in range(n):
            positive = [max(float(mean[h, q, j]), 0) for h in range(len(mean))]
            expected[j] += readout[q] * sum(positive) / len(positive) * product[q, j]
    reference.close(reference.tokens(BeyondIntuition, name, form=form, steps=STEPS), expected)


def test_blocks_from_the_start_layer_on() -> None:
    from_one, chosen = (reference.tokens(BeyondIntuition, "cls", steps=2, **given)
                        for given in ({"start_layer": 1}, {"layers": [1, 2]}))  # fmt: skip
    assert torch.equal(from_one, chosen)
    assert not torch.equal(from_one, reference.tokens(BeyondIntuition, "cls", steps=2))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, "its pooling head classifies none of the blocks' tokens") for name in POOLED),
        ("swin", "it has several resolutions"),
        ("parallel_things", r"which block 0 has not \(blocks\.0"),
        ("sam", "it has several resolutions"),
        *((name, r"another length for each query.* Pass form='heads'") for name in SCALED),
    ],
)
def test_where_it_is_not_defined(name: str, why: str) -> None:
    with pytest.raises(UnsupportedModelError, match=why):
        BeyondIntuition(build(name)).attribute(images(name, 1), target=1, steps=2)


@pytest.mark.parametrize(("given", "named"), [({"form": "rows"}, "form"), ({"steps": 1}, "steps")])
def test_values_that_are_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} must be "):
        BeyondIntuition(build("cls")).attribute(images("cls", 1), target=1, **given)
