"""AGCAM against loops, on every family with a softmax; windows against the maps of each."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from captum_astro import AGCAM, UnsupportedModelError
from tests import twin_windows
from tests.attr import reference
from tests.families import EFFECTIVE, FAMILIES, HIERARCHICAL, build, images

SOFTMAX = [name for name in FAMILIES if name not in EFFECTIVE]


class Cut(TorchFunctionMode):
    """Keeps the scores and the map of each softmax; its map and its values are cut off from what they depend on."""

    def __init__(self, pool: nn.Module | None) -> None:
        super().__init__()
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._pending, self._cuts = False, True
        if pool is not None:
            pool.register_forward_pre_hook(lambda m, a: setattr(self, "_cuts", False))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._pending and func in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__):
            self._pending, args = False, (args[0], args[1].detach())
        out = func(*args, **(kwargs or {}))
        if func not in (torch.Tensor.softmax, torch.softmax, nn.functional.softmax) or out.ndim != 4:
            return out
        if self._cuts:
            self._pending, out = True, out.detach().requires_grad_(True)
        self.kept.append((args[0].detach(), out))
        return out


def run(model: Any, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The scores of each softmax, and the gradient at its map: zero where none arrives."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    with Cut(getattr(model, "attn_pool", None)) as mode:
        score = model(x.requires_grad_(True))[0, reference.TARGET]
    gradients = torch.autograd.grad(score, [a for _, a in mode.kept], allow_unused=True, materialize_grads=True)
    return [(z, g) for (z, _), g in zip(mode.kept, gradients, strict=True)]


@pytest.mark.parametrize("name", SOFTMAX)
def test_agcam(name: str) -> None:
    model: Any = build(name)
    pool, readout = getattr(model, "attn_pool", None), reference.taken(name)[2]
    tokens = len(readout)
    total, found = torch.zeros(tokens, dtype=torch.float64), run(model, images(name, 1))
    for number, (scores, gradient) in enumerate(found):
        _, heads, queries, keys = scores.shape
        row = readout if pool is None else torch.full_like(readout, 1 / tokens)
        if pool is not None and number == len(found) - 1:
            row = torch.eye(queries)[0] if pool.pool == "token" else torch.full((queries,), 1 / queries)
        for h, i, j in itertools.product(range(heads), range(queries), range(keys)):
            entry = max(float(gradient[0, h, i, j]), 0) * float(scores[0, h, i, j].sigmoid())
            total[tokens - keys + j] += float(row[i]) * entry
    reference.close(reference.tokens(AGCAM, name), total)


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_windows(name: str) -> None:
    """Each block's map over all tokens; the read-out and the sum pass through merging by equal shares."""
    model, taken = twin_windows.of_model(name, "logit")
    blocks, found = twin_windows.blocks_of(model), run(build(name), images(name, 1))
    grids, grid = {}, taken.grid
    downs: list[torch.Tensor] = []  # from each block's grid to the first
    down = torch.eye(len(taken.lengths), dtype=torch.float64)
    for step in taken.steps:
        if isinstance(step, twin_windows.Merged):
            down, grid = twin_windows.merge_matrix(step, False) @ down, (-(-grid[0] // 2), -(-grid[1] // 2))
        elif isinstance(step, twin_windows.Attended):
            grids[step.block] = grid
            downs.append(down)
    total = torch.zeros(len(taken.lengths), dtype=torch.float64)
    last = torch.full((len(downs[-1]),), 1 / len(downs[-1]), dtype=torch.float64)
    for number, (block, (scores, gradient)) in enumerate(zip(blocks, found, strict=True)):
        z, g = (twin_windows.whole_map(block, *grids[number], x) for x in (scores.sigmoid(), gradient))
        # what each token of this grid has of the read-out: equal shares of every merging in between
        row, grid = last, len(downs[number])
        for step in reversed([s for s in taken.steps if isinstance(s, twin_windows.Merged)]):
            if len(row) == grid:
                break
            row = row @ twin_windows.merge_matrix(step, False)
        total += (row @ (g.clamp(min=0) * z).sum(0)) @ downs[number]
    got = AGCAM(model).attribute(images(name, 1), target=reference.TARGET, attribute_to="tokens")[0]
    reference.close(got, total)


@pytest.mark.parametrize("name", [*EFFECTIVE, "cait"])
def test_a_map_that_is_no_plain_softmax_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"^AGCAM needs the scores .* blocks\.\d\.attn is no plain softmax"):
        AGCAM(build(name)).attribute(images(name, 1), target=1)
