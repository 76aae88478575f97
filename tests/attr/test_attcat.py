"""ATTCAT against loops, on every family."""

from __future__ import annotations

import pytest
import torch

from captum_astro import ATTCAT
from tests import twins
from tests.attr import reference
from tests.families import EFFECTIVE, FAMILIES, images


@pytest.mark.parametrize("tokens", ["output", "input"])
@pytest.mark.parametrize("name", FAMILIES)
def test_attcat(name: str, tokens: str) -> None:
    """Blocks' outputs or inputs and gradients come from plain hooks, attention from the reference implementation."""
    model, taken, readout = reference.taken(name)
    outs: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda m, a, o: outs.append(o if tokens == "output" else a[0]))
        for block in model.blocks
    ]
    score = model(images(name, 1).requires_grad_(True))[0, reference.TARGET]
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(score, outs)
    stages = [parts for _, parts in taken.stages if parts[0].attention is not None]
    for readout_row in (False, True):
        total = torch.zeros(len(readout), dtype=torch.float64)
        for parts, token, gradient in zip(stages, outs, gradients, strict=True):
            activation = torch.stack([token[0, i] @ gradient[0, i] for i in range(len(readout))])
            for part in parts:
                if part.attention is None:
                    continue
                weights = twins.mean_map(part)
                row = readout if readout_row and taken.pool is None else torch.full_like(readout, 1 / len(readout))
                total += (row @ weights) * activation
        reference.close(reference.tokens(ATTCAT, name, readout_row=readout_row, tokens=tokens), total.detach())
        assert total.min() < 0 or name in EFFECTIVE or tokens == "input"
