"""ProjectedFlow against loops over a model whose decisions are held constant, and what its definition promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from captum_astro import ProjectedFlow
from captum_astro.functional.projected_flow import contributing, share_of_length
from captum_astro.layouts.base import layout_for
from tests.families import FAMILIES, HIERARCHICAL, build, images

TARGET = 3
# whose stages are two residual adds a block, with LayerNorm, GELU and softmax
LOOPED = ("cls", "registers", "average", "average_with_prefix", "clip", "no_biases", "rectangular", "distilled")


class _Linearised(TorchFunctionMode):
    """Attention weights are leaves; norms divide by a constant; an activation multiplies by one."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.softmax, torch.softmax) and out.ndim == 4:
            self.maps.append(out.detach().requires_grad_(True))
            return self.maps[-1]
        if func is F.gelu:
            return args[0] * (out / args[0]).detach()
        if func is F.layer_norm:
            given = dict(zip(("x", "shape", "weight", "bias", "eps"), args, strict=False)) | (kwargs or {})
            x = given["x"]
            sigma = (x.var(-1, keepdim=True, unbiased=False) + given["eps"]).sqrt().detach()
            return (x - x.mean(-1, keepdim=True)) / sigma * given["weight"] + given["bias"]
        return out


def _looped(name: str, output: str) -> torch.Tensor:
    """The definition, entry by entry."""
    model, x = build(name), images(name, 1)
    after: list[torch.Tensor] = []  # the tokens that leave each attention layer
    for block in model.blocks:
        block.attn.fused_attn = False
        block.norm2.register_forward_pre_hook(lambda m, a: after.append(a[0]))
    last: list[torch.Tensor] = []
    model.blocks[-1].register_forward_hook(lambda m, a, o: last.append(o))
    with _Linearised() as linear:
        scores = model(x.clone().requires_grad_(True))
        y = scores.softmax(-1)[0, TARGET] if output == "probability" else scores[0, TARGET]
    count = len(linear.maps)
    found = torch.autograd.grad(y, [*linear.maps, *after, *last])
    final = found[-1][0]
    added = [max(float(g @ e), 0.0) for g, e in zip(final, last[0][0].detach(), strict=True)]
    read = final.any(-1)  # the tokens that are averaged, each with the same weight
    row = [value / sum(added) for value in added] if sum(added) else (read / read.sum()).tolist()
    for layer in reversed(range(count)):
        maps, slopes = linear.maps[layer][0].tolist(), found[layer][0].tolist()
        following = list(row)
        for i in range(len(row)):
            most = float(found[count + layer][0, i].norm() * after[layer][0, i].detach().norm())
            for j in range(len(row)):
                edges = sum(max(a[i][j] * g[i][j], 0.0) for a, g in zip(maps, slopes, strict=True))
                following[j] += row[i] * edges / most if most else 0.0
        row = following
    return torch.tensor(row, dtype=torch.float64)


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("name", LOOPED)
def test_agrees_with_the_loops(name: str, output: str) -> None:
    tokens = ProjectedFlow(build(name)).attribute(images(name, 1), target=TARGET, output=output, attribute_to="tokens")[
        0
    ]
    expected = _looped(name, output)
    assert (tokens - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("name", [*FAMILIES, *HIERARCHICAL])
def test_the_scale_of_the_output_does_not_matter(name: str) -> None:
    model, x = build(name), images(name, 1)
    maps = []
    for factor in (1.0, 1e-9):
        scaled = torch.nn.Sequential(model, _Times(factor))
        assert layout_for(model) is not None
        maps.append(ProjectedFlow(scaled).attribute(x, target=TARGET, output="logit", attribute_to="tokens"))
    assert maps[0].any()
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-8, atol=0)


class _Times(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_share_of_length() -> None:
    tokens = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [9.0, 9.0]]])
    gradient = torch.tensor([[[0.0, 2.0], [1.0, 1.0], [0.0, 0.0]]])  # the last token adds nothing
    row = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    expected = torch.tensor([[0.1, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(share_of_length(row, tokens, gradient), expected)
    torch.testing.assert_close(share_of_length(row[:, None], tokens, gradient), expected[:, None])
    # squares of such gradients are 0 in float32
    torch.testing.assert_close(share_of_length(row, tokens, gradient * 1e-30), expected * 1e30)


def test_contributing() -> None:
    tokens = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]] * 2)
    gradient = torch.tensor([[[3.0], [3.0], [-1.0], [5.0]], [[-1.0], [-1.0], [-1.0], [5.0]]])
    readout = torch.tensor([[0.5, 0.25, 0.25, 0.0]] * 2)
    expected = torch.tensor([[1 / 3, 2 / 3, 0.0, 0.0], [0.5, 0.25, 0.25, 0.0]])
    torch.testing.assert_close(contributing(readout, tokens, gradient), expected)
