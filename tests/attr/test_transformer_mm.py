"""TransformerMM against loops, on every family."""

from __future__ import annotations

import pytest

from captum_astro import TransformerMM
from tests import twins
from tests.attr import reference
from tests.families import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_transformer_mm(name: str) -> None:
    model, taken, readout = reference.taken(name)
    reference.close(
        reference.tokens(TransformerMM, name), twins.chain(model, taken, readout, lambda a, g: max(a * g, 0.0))
    )
