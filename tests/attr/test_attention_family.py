"""RawAttention, AttentionRollout, TransformerMM, ATTCAT and AttentionGradCAM against loops, on every family."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from captum_astro import ATTCAT, AttentionGradCAM, AttentionRollout, RawAttention, TransformerMM
from tests import twins
from tests.families import EFFECTIVE, FAMILIES, images

TARGET = 3


_taken = partial(twins.of_family, target=TARGET)


def _tokens(method: Any, name: str, **options: Any) -> torch.Tensor:
    return method(_taken(name)[0]).attribute(images(name, 1), target=TARGET, attribute_to="tokens", **options)[0]


def _close(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("name", FAMILIES)
def test_rollout(name: str) -> None:
    model, taken, readout = _taken(name)
    _close(_tokens(AttentionRollout, name), twins.chain(model, taken, readout, None, normalise=True))
    per_block = len(taken.stages) // len(model.blocks)
    later = twins.Taken(taken.stages[per_block:], taken.pool)
    _close(_tokens(AttentionRollout, name, start_layer=1), twins.chain(model, later, readout, None, normalise=True))


def test_rollout_is_the_form_with_halves() -> None:
    _, taken, readout = _taken("cls")
    row = readout
    for _, parts in reversed(taken.stages):
        if parts[0].attention is not None:
            row = 0.5 * row + 0.5 * row @ parts[0].attention.mean(0)
    _close(_tokens(AttentionRollout, "cls"), row)
    assert abs(float(row.sum()) - 1) < 1e-12


@pytest.mark.parametrize("name", FAMILIES)
def test_transformer_mm(name: str) -> None:
    model, taken, readout = _taken(name)
    _close(_tokens(TransformerMM, name), twins.chain(model, taken, readout, lambda a, g: max(a * g, 0.0)))


@pytest.mark.parametrize("name", FAMILIES)
def test_raw_attention(name: str) -> None:
    model, taken, readout = _taken(name)
    parts, rows, first = twins.last_attention(model, taken, readout)
    expected = sum(rows @ twins.mean_map(part) for part in parts)
    _close(_tokens(RawAttention, name)[first:], expected)
    if taken.pool is None:
        _close(_tokens(RawAttention, name, layers=[-1]), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_grad_cam(name: str) -> None:
    model, taken, readout = _taken(name)
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
    got = _tokens(AttentionGradCAM, name)[first:]
    assert (got - expected).abs().max() <= 1e-10 * max(1e-6, float(expected.abs().max()))


@pytest.mark.parametrize("name", FAMILIES)
def test_attcat(name: str) -> None:
    """Blocks' outputs and gradients come from plain hooks, attention from the reference implementation."""
    model, taken, readout = _taken(name)
    outs: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda m, a, o: outs.append(o)) for block in model.blocks]
    score = model(images(name, 1).requires_grad_(True))[0, TARGET]
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
        _close(_tokens(ATTCAT, name, readout_row=readout_row), total.detach())
        assert total.min() < 0 or name in EFFECTIVE
