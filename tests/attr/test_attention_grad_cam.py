"""AttentionGradCAM against loops, on every family."""

from __future__ import annotations

import pytest
import torch

from captum_astro import AttentionGradCAM
from tests import twins
from tests.attr import reference
from tests.families import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_grad_cam(name: str) -> None:
    model, taken, readout = reference.taken(name)
    parts, rows, first = twins.last_attention(model, taken, readout)
    expected = 0
    for part in parts:
        heads, keys = part.attention.shape[0], part.attention.shape[2]
        cam = torch.zeros(keys, dtype=torch.float64)
        for h in range(heads):
            slope = sum(rows[i] * part.gradient[h, i] for i in range(len(rows)))
            weight = slope[max(0, model.num_prefix_tokens - first) :].mean()
            cam += weight * sum(rows[i] * part.attention[h, i] for i in range(len(rows))) / heads
        expected = expected + cam.clamp(min=0)
    got = reference.tokens(AttentionGradCAM, name)[first:]
    assert (got - expected).abs().max() <= 1e-10 * max(1e-6, float(expected.abs().max()))
