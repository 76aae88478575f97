"""AttentionRollout against loops, on every family."""

from __future__ import annotations

import pytest

from captum_astro import AttentionRollout
from tests import twins
from tests.attr import reference
from tests.families import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_rollout(name: str) -> None:
    model, taken, readout = reference.taken(name)
    reference.close(reference.tokens(AttentionRollout, name), twins.chain(model, taken, readout, None, normalise=True))
    per_block = len(taken.stages) // len(model.blocks)
    later = twins.Taken(taken.stages[per_block:], taken.pool)
    reference.close(
        reference.tokens(AttentionRollout, name, start_layer=1),
        twins.chain(model, later, readout, None, normalise=True),
    )


def test_rollout_is_the_form_with_halves() -> None:
    _, taken, readout = reference.taken("cls")
    row = readout
    for _, parts in reversed(taken.stages):
        if parts[0].attention is not None:
            row = 0.5 * row + 0.5 * row @ parts[0].attention.mean(0)
    reference.close(reference.tokens(AttentionRollout, "cls"), row)
    assert abs(float(row.sum()) - 1) < 1e-12
