"""Attention whose output is gated channel by channel: what a token adds depends on the query."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from captum_astro import AttentionRollout, TransformerMM, UnsupportedModelError, VTranM, check
from captum_astro.layouts import layout_for
from tests import twin_layers as twin
from tests.comparing import assert_close
from tests.families import Gated, _vit, build, images
from tests.twin_layers import Layer, Run, Taken, added, describes

TARGET = 3


@describes(VisionTransformer)
def gated(model: Any, run: Run) -> Taken:
    """Every query has vectors of its own."""
    layers = []
    for block in model.blocks:
        attn, stream, read = block.attn, run.seen[block.norm1][0], run.outs[block.norm1][0]
        (attention, gradient), factors = run.map(), run.outs[attn.gate][0].sigmoid()
        heads, n, _ = attention.shape
        width, size = stream.shape[1], attn.head_dim
        whole, rebuilt = torch.zeros(n, n, dtype=stream.dtype), torch.zeros(n, width, dtype=stream.dtype)
        for h, i in itertools.product(range(heads), range(n)):
            part = slice(h * size, (h + 1) * size)
            rows = slice(2 * width + h * size, 2 * width + (h + 1) * size)
            ratios, exponentials = [], []
            for j in range(n):
                value = attn.qkv.weight[rows] @ read[j] + attn.qkv.bias[rows]
                vector = block.ls1.gamma * (attn.proj.weight[:, part] @ (factors[i, part] * value))
                rebuilt[i] += attention[h, i, j] * vector
                length, own = float(vector.norm()), float(stream[j].norm())
                ratios.append(length / own)
                exponentials.append(math.exp(float(vector @ stream[j]) / (length * own)))
            for j in range(n):
                weight = ratios[j] * exponentials[j] / sum(exponentials)
                whole[i, j] += gradient[h, i, j].clamp(min=0) * attention[h, i, j] * weight / heads
        found = run.outs[block.ls1][0]
        assert (rebuilt + block.ls1.gamma * attn.proj.bias - found).abs().max() < 1e-12 * found.abs().max()
        identity = torch.eye(n, dtype=stream.dtype)
        matrices = {"vtranm": whole, "rollout": attention.mean(0)}
        layers.append(Layer({True: identity, False: identity}, matrices))
        layers.append(added(run.seen[block.norm2][0], run.outs[block.ls2][0]))
    readout = torch.zeros(n, dtype=torch.float64)
    readout[0] = 1
    return Taken(layers, run.seen[model.blocks[0]][0].norm(dim=-1), readout)


def test_the_identity_holds() -> None:
    report = check(build("gated"), images("gated", 2))
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12


def test_against_explicit_matrices() -> None:
    model, taken = twin.of_model("gated", TARGET)
    x = images("gated", 1)
    found = VTranM(model).attribute(x, target=TARGET, attribute_to="tokens", gain=10.0)[0]
    assert_close(found, twin.vtranm(taken, 10.0))
    whole = VTranM(model).contribution_map(x, target=TARGET, gain=10.0)[0]
    assert_close(whole[0], found)
    assert_close(AttentionRollout(model).attribute(x, attribute_to="tokens")[0], twin.rollout(taken))


@pytest.mark.parametrize("method", [VTranM, TransformerMM])
def test_a_batch_equals_single_calls(method: Any) -> None:
    model, x = build("gated"), images("gated")
    whole = method(model).attribute(x, target=[0, 1, 2])
    assert_close(whole, torch.cat([method(model).attribute(one[None], target=c) for c, one in enumerate(x)]))


def test_without_components_nothing_is_measured() -> None:
    model, x = build("gated"), images("gated", 1)
    assert VTranM(model).attribute(x, target=1, components=()).any()


def test_a_norm_before_the_gate_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="without scale_norm"):
        layout_for(_vit(attn_layer=Gated, scale_attn_norm=True))
