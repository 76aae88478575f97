"""The backward passes that recompute, against autograd through each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_astro.functional import astromorphic_features, astromorphic_memory, astromorphic_positions
from captum_astro.functional.astromorphic import astromorphic_attention
from captum_astro.functional.astromorphic_positions import decayed, decayed_parts, position_keys
from tests.functional.test_astromorphic import OPTIONS, SCALE, padding, tensors

WHOLE = [o for o in OPTIONS if not o["causal"]]


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 tokens, of which 11 and 13 are no multiple."""

    def chunks(x: torch.Tensor, tokens: int) -> list[slice]:
        return [slice(start, min(start + 4, tokens)) for start in range(0, tokens, 4)]

    for module in (astromorphic_features, astromorphic_memory, astromorphic_positions):
        monkeypatch.setattr(module, "chunks", chunks)


def attention(options: dict[str, Any], masked: bool = True) -> Any:
    mask = padding(11) if masked else None

    def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        position = position_keys(memory, 11, 2.5)
        return astromorphic_attention(query, key, value, position, scale=SCALE, mask=mask, **options)

    return run


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (astromorphic_memory, astromorphic_positions):
        at_once = module._at_once
        monkeypatch.setattr(module._Recomputed, "apply", lambda *given, f=at_once: (f(*given),))


@pytest.mark.parametrize("options", WHOLE, ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_the_gradients_are_those_of_each_step(monkeypatch, options: dict[str, Any], masked: bool) -> None:
    given, run = tensors(), attention(options, masked)
    found = run(*given)
    cotangent = torch.randn_like(found)
    ours = torch.autograd.grad(found, given, cotangent)
    plain(monkeypatch)
    expected = run(*given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for x, y in zip(ours, torch.autograd.grad(expected, given, cotangent), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [WHOLE[0], WHOLE[-1]], ids=str)
def test_first_and_second_derivatives(options: dict[str, Any]) -> None:
    given = [(x.detach() / 2).requires_grad_() for x in tensors()]
    assert torch.autograd.gradcheck(attention(options), given, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(attention(options), given, fast_mode=True)


def test_a_saturated_feature_and_pure_padding_have_the_gradients_of_each_step(monkeypatch) -> None:
    query, key, value, _ = (x.detach() for x in tensors())
    query[0, 0, 3], key[1, 1, 2] = -50.0, -50.0  # below the floor
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[1] = False
    given = [x.requires_grad_() for x in (query, key, value)]

    def gradients() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(astromorphic_attention(*given, scale=SCALE, mask=mask).square().sum(), given)

    ours = gradients()
    plain(monkeypatch)
    for x, y in zip(ours, gradients(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-10)  # C is 1e-11 where there is only padding


@pytest.mark.parametrize("decay", [1e-3, 2.5, 1e3])
@pytest.mark.parametrize("length", [1, 4, 5, 13])
def test_the_kernel_in_parts_is_the_kernel(decay: float, length: int) -> None:
    x = torch.randn(2, 3, length, dtype=torch.float64)
    parts = list(decayed_parts(x, decay))
    assert sum(part.stop - part.start for part, _ in parts) == length
    torch.testing.assert_close(torch.cat([y for _, y in parts], -1), decayed(x, decay), rtol=1e-12, atol=1e-12)
