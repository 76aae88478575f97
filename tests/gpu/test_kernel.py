"""The kernel of a row on a GPU against the chunked form on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from captum_astro.functional import fused
from captum_astro.functional.attention import Attention, Softmax
from tests.functional.interpreted_rows import ENTRIES, LAYERS, METHODS


def _on_gpu(layer: Attention) -> Attention:
    part = layer.maps[0]
    assert isinstance(part, Softmax)
    bias = None if part.bias is None else part.bias.cuda()
    moved = replace(part, query=part.query.cuda(), key=part.key.cuda(), bias=bias)
    return replace(layer, maps=(moved,), value=layer.value.cuda())


# every entry once, and every form of a layer once: each pair is compiled
PAIRS = [
    *(("several blocks", method) for method in (*ENTRIES, "GMAR, L1")),
    *((layer, "TransformerMM") for layer in LAYERS),
]


@pytest.mark.parametrize(("layer", "method"), PAIRS)
def test_the_kernel_is_the_chunked_form(layer: str, method: str) -> None:
    row, given, gradient = LAYERS[layer]()
    expected = METHODS[method](row, given, gradient)
    moved = _on_gpu(given)
    assert fused.fused_rows(row.cuda(), moved, "attention") is not None
    got = METHODS[method](row.cuda(), moved, gradient.cuda()).cpu()
    assert torch.equal(got.isnan(), expected.isnan())
    assert (got - expected).abs().nan_to_num().max() <= 1e-5 * expected.abs().nan_to_num().max()


@pytest.mark.parametrize("width", [16, 32, 64, 96, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_size_of_tiles(width: int, dtype: torch.dtype) -> None:
    """With a bias and float32 gradients, which take most of the shared memory."""
    q, k, v, g = (torch.randn(2, 2, 150, width, device="cuda").to(dtype) for _ in range(4))
    bias = torch.randn(150, 150, device="cuda")
    layer, row = Attention((Softmax(q, k, width**-0.5, bias),), (1.0,), v), torch.rand(2, 150, device="cuda")
    exact = Attention((Softmax(q.double(), k.double(), width**-0.5, bias.double()),), (1.0,), v.double())
    expected = METHODS["TransformerMM"](row.double(), exact, g.double())
    got = METHODS["TransformerMM"](row, layer, g.float())
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_results_repeat_to_the_last_bit() -> None:
    row, layer, gradient = LAYERS["several blocks"]()
    moved = _on_gpu(layer)
    first, second = (METHODS["TransformerMM"](row.cuda(), moved, gradient.cuda()) for _ in range(2))
    assert torch.equal(first, second)
