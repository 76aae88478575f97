"""Attention on five dimensions, or without one for heads, as samples and heads."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from captum_astro.capture.windows import as_heads, as_samples, recorded_as_heads
from captum_astro.functional.attention import Given, Softmax
from captum_astro.functional.operations import Recorded
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import AttentionBranch


def _branch(windows: int | None = None, heads: int | None = None) -> AttentionBranch:
    return cast(AttentionBranch, SimpleNamespace(windows=windows, heads=heads, name="blocks.0.attn"))


@pytest.mark.parametrize("windows", [1, 2])
def test_windows_become_samples_image_by_image(windows: int) -> None:
    images, count, heads, tokens, width = 2, 3, 4, 5, 6
    x = torch.randn(images, *((count, heads) if windows == 1 else (heads, count)), tokens, width)
    samples = as_samples(x, windows)
    assert samples.shape == (images * count, heads, tokens, width)
    for image in range(images):
        for window in range(count):
            own = x[image, window] if windows == 1 else x[image, :, window]
            assert torch.equal(samples[image * count + window], own)
    found = as_heads(x, _branch(windows))
    assert found is not None
    assert torch.equal(found, samples)


def test_heads_that_are_part_of_the_batch() -> None:
    x = torch.randn(6, 5, 4)
    found = as_heads(x, _branch(heads=3))
    assert found is not None
    assert torch.equal(found, x.reshape(2, 3, 5, 4))
    assert as_heads(torch.randn(5, 4), _branch(heads=3)) is None
    assert as_heads(torch.randn(2, 3, 5, 4), _branch(windows=1)) is None


def test_a_recorded_call() -> None:
    query, key, value = torch.randn(3, 6, 5, 4)
    bias = torch.randn(6, 5, 5)
    called = Recorded(Softmax(query, key, 0.5, bias), value)
    found = recorded_as_heads(called, _branch(heads=3))
    assert found is not None
    assert isinstance(found.map, Softmax)
    expected = (query @ key.transpose(-2, -1) * 0.5 + bias).softmax(-1)
    torch.testing.assert_close(found.map.rows(0, 5), expected.reshape(2, 3, 5, 5))
    assert torch.equal(found.value, value.reshape(2, 3, 5, 4))
    of_map = recorded_as_heads(Recorded(Given(expected, expected.log()), value), _branch(heads=3))
    assert of_map is not None
    assert isinstance(of_map.map, Given)
    assert of_map.map.logits is not None
    assert torch.equal(of_map.map.attention, expected.reshape(2, 3, 5, 5))
    assert torch.equal(of_map.map.logits, expected.log().reshape(2, 3, 5, 5))


def test_a_usual_call_stays_as_it_is() -> None:
    x = torch.randn(2, 3, 5, 4)
    called = Recorded(Softmax(x, x, 1.0), x)
    assert recorded_as_heads(called, _branch()) is called
    assert recorded_as_heads(called._replace(value=x[0]), _branch()) is None


def test_a_bias_of_windows_is_refused_by_name() -> None:
    x: Any = torch.randn(2, 3, 4, 5, 6)
    called = Softmax(x, x, 1.0)
    assert recorded_as_heads(Recorded(called, x), _branch(windows=1)) is not None
    biased = Recorded(replace(called, bias=torch.zeros(5, 5)), x)
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0\.attn has a mask or a bias for windows"):
        recorded_as_heads(biased, _branch(windows=1))
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0\.attn has a mask or a bias"):
        recorded_as_heads(Recorded(called, x, constant=x), _branch(windows=1))
