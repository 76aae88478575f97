from __future__ import annotations

import pytest

from captum_astro.models.counts import Cost
from captum_astro.models.energy import energy_per_token

COST = Cost(projections=1000, mixing=500, normaliser=300, positions=200, exponentials=100, state=7)


@pytest.mark.parametrize(
    ("options", "picojoules"),
    [
        ({}, (2000 + 10 * 100) * 4.6),
        ({"precision": "float16"}, (2000 + 10 * 100) * 1.5),
        ({"exponential": 0}, 2000 * 4.6),
    ],
)
def test_energy_is_operations_times_their_energies(options, picojoules: float) -> None:
    assert energy_per_token(COST, 5, **options) == pytest.approx(picojoules / 5 / 1000, rel=1e-12)


@pytest.mark.parametrize("options", [{"precision": "int8"}, {"tokens": 0}, {"exponential": -1}])
def test_arguments_out_of_range_are_named(options) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        energy_per_token(COST, **({"tokens": 5} | options))
