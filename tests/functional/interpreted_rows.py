"""The kernel of a row against the chunked form, in Triton's interpreter: run as a process of its own.

    TRITON_INTERPRET=1 python -m tests.functional.interpreted_rows

Prints, as JSON, the largest error of each case relative to the largest value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch

from captum_astro.functional import fused
from captum_astro.functional.attention import Attention, Softmax
from captum_astro.functional.attention_grad_cam import attention_grad_cam
from captum_astro.functional.gmar import head_weights
from captum_astro.functional.legrad import legrad_map
from captum_astro.functional.rollout import mixed_row
from captum_astro.functional.transformer_mm import transformer_mm_update
from captum_astro.functional.vtranm import attention_update

T = torch.Tensor
B, H = 2, 3
METHODS: dict[str, Callable[[T, Attention, T], T]] = {
    "raw attention, rollout": lambda row, layer, _: mixed_row(row, layer),
    "weighted rollout": lambda row, layer, _: mixed_row(row, layer, torch.rand(B, H, generator=_generator())),
    "TransformerMM": transformer_mm_update,
    "VTranM": lambda row, layer, gradient: attention_update(row, layer, gradient, layer.value.float().norm(dim=-1)),
    "VTranM, scaled queries": lambda row, layer, gradient: attention_update(
        row, layer, gradient, layer.value.float().norm(dim=-1), gradient.float().norm(dim=-1)
    ),
    "LeGrad": legrad_map,
    "GMAR, L1": lambda row, layer, gradient: head_weights(layer, gradient, B),
    "GMAR, L2, padded": lambda row, layer, gradient: head_weights(
        layer, gradient, B, 2, torch.arange(layer.value.shape[2])[None] % 3 > 0
    ),
    "AttentionGradCAM": lambda row, layer, gradient: attention_grad_cam(
        row, layer, gradient, torch.ones(1, layer.value.shape[2], dtype=torch.bool), B, relu=False
    ),
}
ENTRIES = ("raw attention, rollout", "VTranM", "LeGrad")  # one of each kind


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _layer(
    queries: int = 20, keys: int = 37, width: int = 8, value_width: int | None = None,
    dtype: torch.dtype = torch.float32, spread: float = 1, **options: Any,
) -> tuple[T, Attention, T]:  # fmt: skip
    torch.manual_seed(0)
    value_width = value_width or width
    shapes = ((queries, width), (keys, width), (keys, value_width), (queries, value_width))
    q, k, v, g = ((spread * torch.randn(B, H, *shape)).to(dtype) for shape in shapes)
    return torch.rand(B, queries), Attention((Softmax(q, k, width**-0.5, **options),), (1.0,), v), g


def _fused_projection() -> tuple[T, Attention, T]:
    """Slices of one tensor of queries, keys and values, as in timm; one value for all heads."""
    row, _, gradient = _layer(20, 20)
    q, k, v = torch.randn(B, 20, 3, H, 8).permute(2, 0, 3, 1, 4)
    return row, Attention((Softmax(q, k, 0.5),), (1.0,), v[:, :1].expand(-1, H, -1, -1)), gradient


def _channels_apart() -> tuple[T, Attention, T]:
    """Tensors whose channels are not next to each other, as attention over channels has them."""
    row, *_ = _layer(20, 20)
    q, k, v, g = (torch.randn(B, H, 8, 20).transpose(-2, -1) for _ in range(4))
    return row, Attention((Softmax(q, k, 0.5),), (1.0,), v), g.contiguous()


def _of_two_precisions() -> tuple[T, Attention, T]:
    """A gradient that was widened."""
    row, layer, gradient = _layer(dtype=torch.bfloat16)
    return row, layer, gradient.float()


def _not_a_number(**options: Any) -> tuple[T, Attention, T]:
    row, layer, gradient = _layer(**options)
    layer.maps[0].query[0, 0, 3, 0] = math.nan
    layer.value[1, 1, 5, 0] = math.nan
    return row, layer, gradient


def _bias(*shape: int) -> T:
    return torch.randn(*shape, generator=_generator())


def _mask(*shape: int) -> T:
    mask = torch.rand(*shape, generator=_generator()) > 0.4
    mask[..., 2, :] = False  # a query that may attend to nothing
    return mask


LAYERS: dict[str, Callable[[], tuple[T, Attention, T]]] = {
    "one block of one token": lambda: _layer(1, 1),
    "several blocks": lambda: _layer(70, 133),
    "heads of other widths": lambda: _layer(width=20, value_width=130),
    "bias of each pair": lambda: _layer(bias=_bias(1, H, 20, 37)),
    "bias of each key": lambda: _layer(70, bias=_bias(B, 1, 1, 37)),
    "half bias": lambda: _layer(bias=_bias(20, 37).half()),
    "mask with an empty row": lambda: _layer(bias=_mask(B, 1, 20, 37)),
    "mask by -inf, an empty row": lambda: _layer(bias=torch.zeros(20, 37).masked_fill(~_mask(20, 37), -torch.inf)),
    "mask by -100": lambda: _layer(bias=-100.0 * ~_mask(H, 20, 37)),
    "causal": lambda: _layer(70, 70, causal=True),
    "causal with a bias": lambda: _layer(20, 20, causal=True, bias=_bias(B, H, 20, 20)),
    "large scores": lambda: _layer(spread=4),
    "a fused projection": _fused_projection,
    "channels apart": _channels_apart,
    "a widened gradient": _of_two_precisions,
    "NaN": _not_a_number,
    "NaN with a bias": lambda: _not_a_number(bias=_bias(20, 37)),
    "bfloat16": lambda: _layer(dtype=torch.bfloat16),
    "float16": lambda: _layer(dtype=torch.float16, bias=_bias(20, 37).half()),
}
CASES = {
    **{method: (method, _layer) for method in METHODS},
    **{f"{layer}: {method}": (method, make) for layer, make in LAYERS.items() for method in ENTRIES},
}


def errors() -> dict[str, float]:
    """The largest difference of each case from the chunked form, relative to its largest value; inf for other NaNs."""
    found = {}
    for name, (method, make) in CASES.items():
        row, layer, gradient = make()
        expected = METHODS[method](row, layer, gradient)
        fits, fused._fits = fused._fits, lambda *_: True  # the CPU does not fit
        try:
            got = METHODS[method](row, layer, gradient)
        finally:
            fused._fits = fits
        same = torch.equal(got.isnan(), expected.isnan()) and got.shape == expected.shape
        difference = (got - expected).abs().nan_to_num().max() / expected.abs().nan_to_num().max()
        found[name] = float(difference) if same and not torch.equal(got, torch.zeros_like(got)) else math.inf
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(errors()))
