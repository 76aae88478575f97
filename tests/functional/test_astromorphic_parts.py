from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_astro.functional.astromorphic import astromorphic_attention
from captum_astro.functional.astromorphic_parts import parts_of, saturated, token_mean
from captum_astro.functional.astromorphic_positions import position_keys
from tests.functional.test_astromorphic import OPTIONS, SCALE, padding, phi, tensors


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_parts_rebuild_the_output_and_its_gradients(options: dict[str, Any], relative: bool, masked: bool) -> None:
    q, k, v, memory = given = tensors()
    position = position_keys(memory, 11, 2.5) if relative else None
    mask = padding(11) if masked else None
    expected = astromorphic_attention(q, k, v, position, scale=SCALE, mask=mask, **options)
    parts = parts_of(q, k, v, position, scale=SCALE, mask=mask, **options)
    torch.testing.assert_close(parts.output, expected, rtol=1e-12, atol=1e-12)
    wanted, cotangent = given if relative else given[:3], torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(parts.output, wanted, cotangent, retain_graph=True),
        torch.autograd.grad(expected, wanted, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_two_memories_from_the_definition(options: dict[str, Any]) -> None:
    q, k, v, memory = (x.detach() for x in tensors())
    position = position_keys(memory, 11, 2.5)
    found = parts_of(q, k, v, position, scale=SCALE, mask=padding(11), **options)
    places = range(11) if options["causal"] else [10]
    assert found.neuron.shape == found.astro.shape == (2, 2, len(places), 4, 3)
    divided = 1 if options["nonlinearity"] == "outside" else SCALE
    for index, place in enumerate(places):
        seen = range(min(place + 1, 7))  # the second sample's last four are padding
        neuron = sum(torch.outer(phi(k[1, 0, j]), v[1, 0, j]) for j in seen) / divided
        astro = sum(torch.outer(position[0, j], v[1, 0, j]) for j in seen) / divided
        torch.testing.assert_close(found.neuron[1, 0, index], neuron, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.astro[1, 0, index], astro, rtol=1e-12, atol=1e-12)


def test_saturation_begins_where_sigma_is_within_a_distance_of_its_ends() -> None:
    ends = torch.logit(torch.tensor([0.0099, 0.0101, 0.5, 0.9899, 0.9901], dtype=torch.float64))
    assert saturated(ends).item() == pytest.approx(2 / 5)
    assert saturated(ends, within=0.02).item() == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("causal", "expected"),
    [(False, [[2.0, 2, 2, 2], [3, 3, 3, 3]]), (True, [[1.0, 1, 2, 2], [2, 3, 3, 3]])],
)
def test_the_mean_token(causal: bool, expected: list[list[float]]) -> None:
    x = torch.tensor([[1.0, 1, 4, 9], [2, 4, 9, 9]])[..., None]
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    assert token_mean(x, mask, causal)[..., 0].tolist() == expected
    assert token_mean(x[:1, :3], None, causal)[0, :, 0].tolist() == expected[0][:3]
    assert token_mean(x, torch.zeros_like(mask), causal).abs().max() == 0  # only padding: no mean
