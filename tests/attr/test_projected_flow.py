"""ProjectedFlow against loops over a model whose decisions are held constant, and what its definition promises."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch.overrides import TorchFunctionMode

from captum_astro import ProjectedFlow
from captum_astro.functional.projected_flow import contributing, share_of_length
from captum_astro.layouts.base import layout_for
from tests import twin_windows
from tests.families import FAMILIES, HIERARCHICAL, build, images

TARGET = 3
# whose stages are two residual adds a block, with LayerNorm, GELU and softmax
LOOPED = ("cls", "registers", "average", "average_with_prefix", "clip", "no_biases", "rectangular", "distilled")

WINDOWED = ("swin", "swin_padded", "swin_v2")  # norms before and after the branches


class _Linearised(TorchFunctionMode):
    """Attention weights are leaves; norms divide by a constant; an activation multiplies by one."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.softmax, torch.softmax, F.softmax) and out.ndim == 4:
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


class _Passed(NamedTuple):
    """A pass with constant decisions of one image: what attention is, and ``dy`` of it."""

    maps: list[torch.Tensor]  # (windows, H, N, N)
    slopes: list[torch.Tensor]
    after: list[torch.Tensor]  # the tokens that leave each attention layer, (n, d)
    directions: list[torch.Tensor]
    start: torch.Tensor  # the final tokens, each by what it contributes


def _passed(name: str, output: str) -> _Passed:
    model, x = build(name), images(name, 1)
    blocks = twin_windows.blocks_of(model) if name in HIERARCHICAL else list(model.blocks)
    after: list[torch.Tensor] = []
    for block in blocks:
        block.attn.fused_attn = False
        follows = block.norm2 if isinstance(block, Block | SwinTransformerBlock) else block.mlp
        follows.register_forward_pre_hook(lambda m, a: after.append(a[0]))
    last: list[torch.Tensor] = []
    blocks[-1].register_forward_hook(lambda m, a, o: last.append(o))
    with _Linearised() as linear:
        scores = model(x.clone().requires_grad_(True))
        y = scores.softmax(-1)[0, TARGET] if output == "probability" else scores[0, TARGET]
    maps = linear.maps
    assert len(maps) == len(after) == len(blocks)
    found = torch.autograd.grad(y, [*maps, *after, *last])
    final, tokens = (t.detach().flatten(0, -2) for t in (found[-1], last[0]))
    added = torch.tensor([max(float(g @ e), 0.0) for g, e in zip(final, tokens, strict=True)], dtype=torch.float64)
    added = added if added.any() else final.any(-1).double()  # the tokens that are averaged, with the same weight
    return _Passed(
        [m.detach() for m in maps],
        list(found[: len(maps)]),
        [t.detach().flatten(0, -2) for t in after],
        [g.flatten(0, -2) for g in found[len(maps) : -1]],
        added / added.sum(),
    )


def _looped(name: str, output: str) -> torch.Tensor:
    """The definition, entry by entry."""
    passed = _passed(name, output)
    row = passed.start.tolist()
    for layer in reversed(range(len(passed.maps))):
        maps, slopes = passed.maps[layer][0].tolist(), passed.slopes[layer][0].tolist()
        following = list(row)
        for i in range(len(row)):
            most = float(passed.directions[layer][i].norm() * passed.after[layer][i].norm())
            for j in range(len(row)):
                edges = sum(max(a[i][j] * g[i][j], 0.0) for a, g in zip(maps, slopes, strict=True))
                following[j] += row[i] * edges / most if most else 0.0
        row = following
    return torch.tensor(row, dtype=torch.float64)


def _with_windows(name: str, output: str) -> torch.Tensor:
    """The definition with a matrix over the whole grid for each layer and each merging."""
    passed = _passed(name, output)
    model, taken = twin_windows.of_model(name, "logit")
    blocks = twin_windows.blocks_of(model)

    def layer(step: twin_windows.Attended | twin_windows.Added) -> torch.Tensor | None:
        if isinstance(step, twin_windows.Added):
            return None
        number = step.block
        grid = twin_windows.block_grid(model, taken, number)
        edges = (passed.maps[number] * passed.slopes[number]).clamp(min=0)
        whole = twin_windows.whole_map(blocks[number], *grid, edges).sum(0)
        most = passed.directions[number].norm(dim=-1) * passed.after[number].norm(dim=-1)
        return torch.eye(len(most), dtype=torch.float64) + whole / most[:, None]

    identity = torch.eye(len(taken.lengths), dtype=torch.float64)
    return passed.start @ twin_windows.product(taken, identity, layer, by_length=True)


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("name", WINDOWED)
def test_agrees_with_matrices_over_windows(name: str, output: str) -> None:
    model, x = build(name), images(name, 1)
    tokens = ProjectedFlow(model).attribute(x, target=TARGET, output=output, attribute_to="tokens")[0]
    expected = _with_windows(name, output)
    assert (tokens - expected).abs().max() <= 1e-10 * expected.abs().max()


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
