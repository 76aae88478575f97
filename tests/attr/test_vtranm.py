from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from captum_astro import UnsupportedModelError, VTranM
from captum_astro.layouts import layout_for
from tests import twins
from tests.families import FAMILIES, build, images

TARGET = 3
OPTIONS = {
    "full": {},
    "length": {"components": ("length",)},
    "direction": {"components": ("direction",)},
    "aggregation": {"components": ()},
    "baseline": {"aggregation": False},
    "gain_logit": {"components": ("length",), "output": "logit", "gain": 3.0},
}
# the twin unfuses timm's attention; the family whose attention is written out is compared with the fused one below
TWINNED = [name for name in FAMILIES if name != "written_out"]


@lru_cache(maxsize=2)
def _taken(name: str, output: str) -> tuple[torch.nn.Module, twins.Taken]:
    model = build(name)
    return model, twins.take(model, images(name, 1), TARGET, output)


@pytest.mark.parametrize("name", TWINNED)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("include_norm", [True, False])
@pytest.mark.one_in(4)
def test_agrees_with_the_loops(name: str, option: str, include_norm: bool) -> None:
    given = {"output": "probability", "aggregation": True, "components": ("length", "direction"), "gain": 1.0}
    given |= OPTIONS[option]
    model, taken = _taken(name, given["output"])
    x = images(name, 1)
    tokens = VTranM(model).attribute(x, target=TARGET, include_norm=include_norm, attribute_to="tokens", **given)[0]
    readout = torch.zeros(len(tokens), dtype=torch.float64)
    if name == "distilled":
        readout[:2] = 0.5
    elif getattr(model, "global_pool", "") == "avg":
        readout[0 if name == "average_with_prefix" else model.num_prefix_tokens :] = 1
        readout /= readout.sum()
    else:
        readout[0] = 1
    output = given.pop("output")
    expected, contribution = twins.vtranm(model, taken, readout, include_norm=include_norm, **given)
    assert expected.abs().max() > 0
    assert (tokens - expected).abs().max() <= 1e-10 * expected.abs().max()
    if contribution is not None:
        del given["aggregation"]
        full = VTranM(model).contribution_map(x, target=TARGET, include_norm=include_norm, output=output, **given)
        assert (full[0] - contribution).abs().max() <= 1e-10 * contribution.abs().max()


def test_the_gradient_part_is_not_lost_beside_the_identity() -> None:
    """U stays close to I, so the comparison above is repeated on C - C0 scaled up."""
    model, taken = _taken("cls", "probability")
    readout = torch.zeros(17, dtype=torch.float64)
    readout[0] = 1
    options = {"aggregation": True, "components": ("length", "direction"), "include_norm": True}
    for gain in (1e3, 1e6):
        expected, _ = twins.vtranm(model, taken, readout, gain=gain, **options)
        tokens = VTranM(model).attribute(images("cls", 1), target=TARGET, gain=gain, attribute_to="tokens")[0]
        torch.testing.assert_close(tokens, expected, rtol=1e-10, atol=0)


def test_explicit_attention_gives_the_same_map() -> None:
    fused, written = build("cls"), build("written_out")
    written.load_state_dict(fused.state_dict())
    x = images("cls")
    torch.testing.assert_close(
        VTranM(written).attribute(x, target=1), VTranM(fused).attribute(x, target=1), rtol=1e-12, atol=0
    )


def test_layers_excludes_the_others() -> None:
    model, taken = _taken("cls", "probability")
    x = images("cls", 1)
    kept = twins.Taken([taken.stages[0], *taken.stages[4:]], None)  # block 2, and the first stream for C0
    kept.stages[0] = (taken.stages[0][0], [])
    readout = torch.zeros(17, dtype=torch.float64)
    readout[0] = 1
    expected, _ = twins.vtranm(
        model, kept, readout, aggregation=True, components=("length", "direction"), include_norm=True, gain=1.0
    )
    for layers in ([2], [-1]):
        tokens = VTranM(model).attribute(x, target=TARGET, layers=layers, attribute_to="tokens")[0]
        torch.testing.assert_close(tokens, expected, rtol=1e-10, atol=0)
    with pytest.raises(ValueError, match="numbered 0 to 2"):
        VTranM(model).attribute(x, target=TARGET, layers=[3])
    with pytest.raises(ValueError, match="selects no attention layer"):
        VTranM(model).attribute(x, target=TARGET, layers=[])


def test_rows_in_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build("differential"), images("differential")
    whole = VTranM(model).attribute(x, target=1)
    full = VTranM(model).contribution_map(x, target=1)
    monkeypatch.setattr("captum_astro.functional.attention.CHUNK_ELEMENTS", 500)
    torch.testing.assert_close(VTranM(model).attribute(x, target=1), whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(VTranM(model).contribution_map(x, target=1), full, rtol=1e-12, atol=1e-16)


def test_forms_of_the_result() -> None:
    model, x = build("dynamic_padded"), images("dynamic_padded")
    method = VTranM(model)
    tokens = method.attribute(x, target=1, attribute_to="tokens")
    grid = method.attribute(x, target=1, attribute_to="grid")
    pixels = method.attribute(x, target=1, attribute_to="pixels")
    whole = method.attribute(x, target=1)
    assert tokens.shape == (3, 21)
    assert torch.equal(grid.flatten(1), tokens[:, 1:])
    assert pixels.shape == (3, 1, 29, 35)
    assert whole.shape == x.shape
    assert whole.is_contiguous()
    torch.testing.assert_close(whole.sum(1, keepdim=True), pixels)
    # the grid covers the image as the model pads it, 32 x 40, and the padding is cut off
    enlarged = torch.nn.functional.interpolate(grid, size=(32, 40), mode="bilinear")
    torch.testing.assert_close(pixels, enlarged[:, :, :29, :35])


def test_unknown_arguments() -> None:
    method, x = VTranM(build("cls")), images("cls")
    for given, message in [
        ({"output": "odds"}, "'probability' or 'logit'"),
        ({"components": ("size",)}, "components must be a tuple of"),
        ({"components": "length"}, "must be a tuple"),
        ({"attribute_to": "patches"}, "attribute_to must be"),
        ({"internal_batch_size": 0}, "at least 1"),
        ({"layers": 2}, r"pass \[2\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            method.attribute(x, target=1, **given)


def test_a_model_of_features_warns() -> None:
    model = build("cls")
    model.reset_classifier(0)
    with pytest.warns(UserWarning, match="no classifier"):
        VTranM(model).attribute(images("cls"), target=1)


def test_wrong_readout_is_rejected() -> None:
    model = build("cls")
    model.global_pool = "token"
    model.pool = lambda x, pool_type=None: x.mean(1)
    with pytest.raises(UnsupportedModelError, match="pooled vector is something other"):
        VTranM(model).attribute(images("cls"), target=1)
    assert layout_for(model) is not None


def test_zero_map_warns() -> None:
    """Only the class token has a value, no patch does."""
    model, x = build("cls"), images("cls")
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1000.0, 0.0, 0.0, 0.0]))
    with pytest.warns(UserWarning, match="VTranM gives a map that is zero everywhere"):
        relevance = VTranM(model).attribute(x, target=1, attribute_to="tokens")
    assert relevance[:, 0].all()
    assert not relevance[:, 1:].any()
