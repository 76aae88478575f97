"""TransformerAttribution against its rules one by one, on every family."""

from __future__ import annotations

from typing import Any

import pytest

from captum_astro import TransformerAttribution
from tests import twin_rules, twins
from tests.attr import reference


@pytest.mark.parametrize("name", reference.TRACED)
@pytest.mark.one_in(2)
def test_transformer_attribution_agrees_with_the_rules_one_by_one(name: str) -> None:
    trace, relevance, gradients = reference.traced(name), twin_rules.DeepTaylor(), twin_rules.AttentionGradients()
    trace.back(reference.TARGET, relevance)
    trace.back(reference.TARGET, gradients)
    model, taken, readout = twins.of_family(name, reference.TARGET)
    pooling: Any = None
    if taken.pool is not None:
        _, queries, first = twins.last_attention(model, taken, readout)
        pooling = queries, first
    both = 2 if "differential" in name else 1  # each of its layers has two maps
    counts = [both * sum(part.attention is not None for part in parts) for _, parts in taken.stages]
    reference.agree(
        TransformerAttribution,
        name,
        twin_rules.transformer_attribution(relevance.maps, gradients.maps, counts, pooling, readout),
        attribute_to="tokens",
    )
