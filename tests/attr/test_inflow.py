"""InFlow against explicit matrices, on every family that has its blocks."""

from __future__ import annotations

import pytest
import torch

from captum_astro import InFlow, UnsupportedModelError
from tests.attr import early, reference
from tests.families import FAMILIES, build, images

PARALLEL = [name for name in FAMILIES if "parallel" in name]
POOLED = [name for name in FAMILIES if "_pooling" in name or name == "distilled"]
DEFINED = [name for name in FAMILIES if name not in PARALLEL + POOLED]


def matrix(attention: torch.Tensor, gradient: torch.Tensor, slope: torch.Tensor, x: torch.Tensor, a: torch.Tensor,
           z: torch.Tensor, m: torch.Tensor) -> torch.Tensor:  # fmt: skip
    """One block's U, from its map and gradients ``(H, n, n)``, its tokens, and what is added to them ``(n, d)``."""
    heads, n, _ = attention.shape
    importance = torch.stack([(attention[h].T @ gradient[h]).abs().mean() for h in range(heads)])
    importance = importance / importance.sum()
    first, second, ratio = (torch.zeros(n, dtype=x.dtype) for _ in range(3))
    for j in range(n):
        length, other = x[j].norm(), a[j].norm()
        first[j] = length / (length + other)
        length, other = z[j].norm(), m[j].norm()
        second[j], ratio[j] = length / (length + other), other / length
    ratio = ratio / ratio.sum()
    update = torch.zeros(n, n, dtype=x.dtype)
    for i in range(n):
        for j in range(n):
            strongest = max(float(importance[h] * attention[h, i, j]) for h in range(heads))
            entry = max(float(sum(slope[h, i, j] for h in range(heads)) / heads) * strongest, 0)
            scale = ratio[j] * (1 - second[j]) + second[j]
            update[i, j] = (entry * (1 - first[j]) + (first[j] if i == j else 0)) * scale
    return update / update.sum(1, keepdim=True)


@pytest.mark.parametrize("name", DEFINED)
def test_inflow(name: str) -> None:
    model, taken, row = reference.taken(name)
    outs: list[torch.Tensor] = []
    hooks = [block.attn.register_forward_hook(lambda m, a, o: outs.append(o[0])) for block in model.blocks]
    with torch.no_grad():
        model(images(name, 1))
    for hook in hooks:
        hook.remove()
    slopes = early.of_family(name, early.head_of_normalised_mean)
    with torch.no_grad():
        for block in reversed(range(len(slopes))):
            (x, (part,)), (z, (feed_forward,)) = taken.stages[2 * block : 2 * block + 2]
            # an astromorphic block normalises the sum
            a = outs[block] if "astromorphic" in name else z - x
            slope = slopes[block][0].gradient
            row = row @ matrix(part.attention, part.gradient, slope, x, a, z, feed_forward.added)
    reference.close(reference.tokens(InFlow, name), row)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, r"^InFlow is defined for blocks .* which block 0 is not \(blocks\.0") for name in PARALLEL),
        *((name, r"^InFlow needs the class score of a mean of tokens") for name in POOLED),
        ("swin", r"^InFlow is defined for blocks .* which block 0 is not \(layers\.0"),
    ],
)
def test_where_it_is_not_defined(name: str, why: str) -> None:
    with pytest.raises(UnsupportedModelError, match=why):
        InFlow(build(name)).attribute(images(name, 1), target=1)
