"""More families as explicit matrices: see `twin_layers`."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.xcit import Xcit
from torch import nn

from tests.twin_layers import BOTH, Layer, Run, T, Taken, added, attended, describes, head_vectors
from tests.twin_windows import measure


def ratios(stream: T, output: T) -> T:
    """The diagonal matrix of a feed-forward layer that sees these tokens only."""
    return torch.diag(measure(stream, output, BOTH, [0] * len(stream)))


def normed(norm: nn.LayerNorm, x: T) -> T:
    """A layer norm, without a call of the module, which would be noted."""
    return nn.functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def first_token(tokens: int) -> T:
    """A read-out of the first token."""
    weights = torch.zeros(tokens, dtype=torch.float64)
    weights[0] = 1
    return weights


def of_first_query(maps: tuple[T, T], tokens: int) -> tuple[T, T]:
    """Maps ``(H, 1, n)`` of the first token as those of all tokens, of which the others attend to nothing."""
    attention, gradient = (torch.cat([x, x.new_zeros(len(x), tokens - 1, tokens)], 1) for x in maps)
    return attention, gradient


@describes(Xcit)
def xcit(model: Any, run: Run) -> Taken:
    """Attention over channels is computed for every token by itself; in the class blocks the patches change too."""
    layers = []
    for block in model.blocks:
        next(run.maps)
        layers.append(added(run.seen[block.norm1][0], run.outs[block.attn][0] * block.gamma1))
        layers.append(added(run.seen[block.norm3][0], run.outs[block.local_mp][0] * block.gamma3))
        layers.append(added(run.seen[block.norm2][0], run.outs[block.mlp][0] * block.gamma2))
    n = len(run.outs[block][0])
    joined = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
    layers.append(Layer({True: joined, False: joined}))
    for block in model.cls_attn_blocks:
        attn, stream, read = block.attn, run.seen[block][0], run.outs[block.norm1][0]
        project = attn.proj.weight * block.gamma1[:, None]
        vectors = head_vectors(read, attn.v.weight, attn.v.bias, project, attn.num_heads)
        layers.append(attended(stream, of_first_query(run.map(), n + 1), vectors))
        extra = read[1:] * block.gamma1
        layers[-1].feed_forward = torch.block_diag(torch.zeros(1, 1), ratios(stream[1:], extra))
        patches = stream[1:] + extra
        patches = normed(block.norm2, patches) if block.tokens_norm else patches
        token = ratios(run.outs[block.norm2][0, :1], run.outs[block.mlp][0] * block.gamma2)
        identity = torch.eye(n + 1, dtype=torch.float64)
        layers.append(Layer({True: identity, False: identity}, {}, torch.block_diag(token, ratios(patches, patches))))
    return Taken(layers, run.seen[model.blocks[0]][0].norm(dim=-1), first_token(n + 1))
