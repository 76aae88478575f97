"""RawAttention against loops, on every family."""

from __future__ import annotations

import pytest

from captum_astro import RawAttention
from tests import twins
from tests.attr import reference
from tests.families import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_raw_attention(name: str) -> None:
    model, taken, readout = reference.taken(name)
    parts, rows, first = twins.last_attention(model, taken, readout)
    expected = sum(rows @ twins.mean_map(part) for part in parts)
    reference.close(reference.tokens(RawAttention, name)[first:], expected)
    if taken.pool is None:
        reference.close(reference.tokens(RawAttention, name, layers=[-1]), expected)
