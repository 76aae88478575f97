"""The relevance of position embeddings, on the pixels of their patches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro import AttnLRP, ConservativeLRP, UnsupportedModelError
from captum_astro.layouts.base import layout_for
from tests import twin_rules
from tests.attr import reference
from tests.families import build, images
from tests.twin_rules import aten

TARGET = reference.TARGET
METHODS = [(AttnLRP, True), (ConservativeLRP, False)]
OTHERS = {  # models with positions of another kind
    "beit": "attention has some of its own", "beit_shared_bias": "attention has some of its own",
    "eva02": "as rotary embeddings are", "eva_post_norm": "as rotary embeddings are",
    "dinov3": "as rotary embeddings are", "grouped_query": "as rotary embeddings are",
    "eva_map_pooling": "as rotary embeddings are", "relative_position": "attention has some of its own",
    "relative_position_cls": "attention has some of its own",
    "relative_position_post_norm": "attention has some of its own", "astromorphic": "attention has some of its own",
    "swin": "attention has some of its own", "nest": "some are added after its first block",
    "cls without positions": "none are added to its features",
}  # fmt: skip


def _model(name: str) -> nn.Module:
    if name != "cls without positions":
        return build(name)
    model = build("cls")
    model.pos_embed = None
    return model


@pytest.mark.parametrize(("method", "attn"), METHODS, ids=["AttnLRP", "ConservativeLRP"])
@pytest.mark.parametrize("name", [name for name in reference.TRACED if name not in OTHERS])
@pytest.mark.one_in(2)
def test_each_patch_shares_its_positions_relevance_among_its_pixels(name: str, method: Any, attn: bool) -> None:
    trace, layout, x = reference.traced(name), layout_for(build(name)), images(name, 1)
    arrived = trace.back(TARGET, twin_rules.Gradients(attn))
    expected = (arrived[trace.image] * x)[0]
    height, width = x.shape[2:]
    rows, columns = layout.grid(height, width)
    high, wide = (whole // cells for whole, cells in zip(layout.extent(height, width), (rows, columns), strict=True))
    pixels = Counter((i // high, j // wide) for i in range(height) for j in range(width))
    found = 0
    for node in trace.graph.graph.nodes:
        if node.target not in (aten.add.Tensor, aten.add_.Tensor) or node not in arrived:
            continue
        constants = [trace.values[n] for n in node.args[:2] if isinstance(n, torch.fx.Node) and n not in trace.moving]
        if not constants or constants[0].ndim < 3:
            continue
        found += 1
        relevance = (arrived[node] * constants[0]).sum(-1)[0][-rows * columns :]
        for i in range(height):
            for j in range(width):
                cell = i // high, j // wide
                expected[:, i, j] += relevance[cell[0] * columns + cell[1]] / pixels[cell] / len(expected)
    assert found == 1
    got = method(build(name)).attribute(x, target=TARGET, positions=True)[0]
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize(("name", "size"), [("hiera_tiny_224", 224), ("pit_ti_224", 224), ("tnt_s_patch16_224", 224)])
def test_positions_go_where_the_model_puts_their_tokens(name: str, size: int) -> None:
    """Whatever the order and the form of its tokens: only where a position is not zero does a pixel gain."""
    torch.manual_seed(0)
    model, x = timm.create_model(name, num_classes=5).eval(), torch.randn(2, 3, size, size)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "pos" in key:
                parameter.zero_()
            elif not parameter.any():  # as a new head
                parameter.normal_(0, 0.02)
        place = next(p for key, p in model.named_parameters() if key in ("pos_embed", "patch_pos"))
        cells = layout_for(model).grid(size, size)
        grid = torch.zeros(cells)
        grid[2, 5] = 1
        if place.ndim == 4:
            place += grid * torch.randn(place.shape[1], 1, 1)
        else:
            place[0, -grid.numel() :] += grid.flatten()[:, None] * torch.randn(place.shape[2])
    plain, located = (AttnLRP(model).attribute(x, target=1, positions=p, attribute_to="pixels") for p in (False, True))
    high, wide = size // cells[0], size // cells[1]
    assert (located - plain).abs().max() > 1e-6 * plain.abs().max()
    gained = (located - plain).abs() > 1e-3 * (located - plain).abs().max()
    rows, columns = (dim.unique() for dim in gained[:, 0].nonzero().T[1:])
    assert abs(int(rows[0]) - 2 * high) <= high
    assert abs(int(columns[0]) - 5 * wide) <= wide
    assert len(rows) <= high + 1
    assert len(columns) <= wide + 1


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_a_batch_is_its_images(output: Any) -> None:
    model, x = build("average"), images("average")
    together = AttnLRP(model).attribute(x, target=[1, 3, 0], output=output, positions=True)
    for image, target, found in zip(x, (1, 3, 0), together, strict=True):
        alone = AttnLRP(model).attribute(image[None], target=target, output=output, positions=True)[0]
        torch.testing.assert_close(found, alone, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("attribute_to", ["grid", "tokens"])
def test_tokens_contain_their_positions_in_either_case(attribute_to: Any) -> None:
    model, x = build("cls"), images("cls")
    plain = AttnLRP(model).attribute(x, target=TARGET, attribute_to=attribute_to)
    found = AttnLRP(model).attribute(x, target=TARGET, attribute_to=attribute_to, positions=True)
    torch.testing.assert_close(found, plain)


def test_random_state_is_kept() -> None:
    model, x = build("cls"), images("cls")
    before = torch.get_rng_state()
    AttnLRP(model).attribute(x, target=TARGET, positions=True)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", OTHERS)
def test_other_positions_are_refused(name: str) -> None:
    model, x = _model(name), images(name.partition(" ")[0], 1)
    with pytest.raises(UnsupportedModelError, match=OTHERS[name]):
        AttnLRP(model).attribute(x, target=1, positions=True)


class _Larger(nn.Module):
    """A wrapper that resizes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(F.interpolate(x, scale_factor=2))


def test_what_has_no_pixels_of_the_patches_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="needs images in the size that the model receives"):
        AttnLRP(_Larger(build("cls"))).attribute(images("cls")[..., ::2, ::2], target=1, positions=True)
    with pytest.raises(UnsupportedModelError, match="positions=True needs a layout"):
        AttnLRP(nn.Sequential(nn.Flatten(), nn.Linear(12, 2))).attribute(
            torch.rand(1, 3, 2, 2), target=1, positions=True
        )
    with pytest.raises(ValueError, match="positions must be true or false"):
        AttnLRP(build("cls")).attribute(images("cls"), target=1, positions="yes")
