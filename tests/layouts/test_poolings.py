"""Pooling heads that normalise, or have positions of their own, against explicit matrices."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from captum_astro import AttentionRollout, RawAttention, VTranM, check
from tests import (
    families,
    twin_byobnet,  # noqa: F401  (describes the family)
    twin_layers,
    twins,
)
from tests.families import UNREGISTERED, build, images
from tests.hybrid_families import _byobnet, _convolutions, _measured

TARGET = 3
# as CLIP's ResNets, with rotary positions: 5 x 3 tokens and their mean are pooled
_ROTARY = partial(_byobnet, _convolutions(8), _convolutions(256, 1, 1 / 32), img_size=(40, 24), head_type="attn_rot")
families.OTHERS["rotary"] = partial(_measured, _ROTARY)
families.SIZES["rotary"] = (40, 24)
every_head = pytest.mark.parametrize("name", [name for name in UNREGISTERED if "pooling" in name])


def _close(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.abs().max() > 0
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@every_head
def test_the_read_out_is_checked(name: str) -> None:
    report = check(build(name), images(name, 2))
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12


@every_head
@pytest.mark.parametrize("include_norm", [True, False])
def test_vtranm(name: str, include_norm: bool) -> None:
    model, x, none = build(name), images(name, 1), torch.zeros(0)
    taken = twins.take(model, x, TARGET, "probability")
    options = {"components": ("length", "direction"), "include_norm": include_norm, "gain": 10.0, "aggregation": True}
    expected, _ = twins.vtranm(model, taken, none, **options)
    _close(VTranM(model).attribute(x, target=TARGET, attribute_to="tokens", **options)[0], expected)


@every_head
def test_attention_alone(name: str) -> None:
    model, x, none = build(name), images(name, 1), torch.zeros(0, dtype=torch.float64)
    taken = twins.take(model, x, TARGET, "logit")
    expected = twins.chain(model, taken, none, None, normalise=True)
    _close(AttentionRollout(model).attribute(x, attribute_to="tokens")[0], expected)
    (part,), rows, first = twins.last_attention(model, taken, none.double())
    raw = torch.cat([torch.zeros(first, dtype=torch.float64), rows @ twins.mean_map(part)])
    _close(RawAttention(model).attribute(x, attribute_to="tokens")[0], raw)


@every_head
def test_a_batch_equals_single_calls(name: str) -> None:
    model, x = build(name), images(name)
    whole = VTranM(model).attribute(x, target=[0, 1, 2])
    _close(whole, torch.cat([VTranM(model).attribute(one[None], target=c) for c, one in enumerate(x)]))


def test_rotary_positions() -> None:
    """They turn queries and keys, and no value."""
    report = check(build("rotary"), images("rotary", 2))
    assert report.ok, str(report)
    assert report.grid == (5, 3)
    model, taken = twin_layers.of_model("rotary", TARGET)
    x = images("rotary", 1)
    _close(VTranM(model).attribute(x, target=TARGET, attribute_to="tokens")[0], twin_layers.vtranm(taken))
    _close(AttentionRollout(model).attribute(x, attribute_to="tokens")[0], twin_layers.rollout(taken))
