"""The causal form of astromorphic attention: each position reads the memory written by the tokens up to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

# positions per chunk: one memory is stored per chunk
LINEAR_CHUNK = 64
SIGMOID_CHUNK = 16


def causal_memory(
    read: torch.Tensor,
    keys: torch.Tensor,
    value: torch.Tensor,
    inner: float | None,
    outer: float,
    chunk: int | None = None,
) -> torch.Tensor:
    """``read_t outer f(inner sum over j <= t of keys_j^T v_j)``, with f the sigmoid, or the identity.

    Without sigma it is a product within each chunk and one with the memory before it, as in other linear attentions.
    With sigma the order of the products is fixed, so every position's ``m x d_v`` memory is formed: a few chunks at a
    time, and again in the backward pass.

    Args:
        read: ``(B, H, n, m)``.
        keys: ``(B, H, n, m)``.
        value: ``(B, H, n, d_v)``.
        inner: The factor before the sigmoid; None for no sigmoid.
        outer: The factor after it.
        chunk: Positions per chunk, 64 by default, 16 with sigma. The result does not depend on it; memory is ``O(n (m +
            d_v + chunk + m d_v / chunk))`` per head, time ``O(n m d_v)``, and with sigma n m d_v sigmoids.

    Returns:
        ``(B, H, n, d_v)``.

    Example:
        >>> ones = torch.ones(1, 1, 3, 1)
        >>> causal_memory(ones, ones, ones, None, 1.0).flatten()
        tensor([1., 2., 3.])
    """
    tokens = read.shape[-2]
    chunk = min(chunk or (LINEAR_CHUNK if inner is None else SIGMOID_CHUNK), tokens)
    read, keys, value = (in_chunks(x, chunk) for x in (read, keys, value))
    if inner is not None:
        keys = keys * inner
    before = memory_before(keys, value)
    if inner is None:
        mixed = (read @ keys.transpose(-2, -1)).tril() @ value + read @ before
    else:
        mixed = _through_sigmoid(read, keys, value, before)
    joined: torch.Tensor = mixed.flatten(-3, -2)
    return joined[..., :tokens, :] * outer


def in_chunks(x: torch.Tensor, chunk: int) -> torch.Tensor:
    """``(..., n, d)`` as ``(..., chunks, chunk, d)``, with zeros after the end."""
    split: torch.Tensor = F.pad(x, (0, 0, 0, -x.shape[-2] % chunk)).unflatten(-2, (-1, chunk))
    return split


def memory_before(keys: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The memory written by all chunks before each chunk: ``(..., chunks, m, d_v)`` from chunked sequences."""
    written = keys.transpose(-2, -1) @ value
    return F.pad(written[..., :-1, :, :].cumsum(-3), (0, 0, 0, 0, 1, 0))


def memories(keys: torch.Tensor, value: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """The memory at each position of a chunk: ``(..., chunk, m, d_v)``."""
    # sums over u <= t as one matrix product: several times faster than outer products and cumsum, also backward
    seen = keys.new_ones(keys.shape[-2], keys.shape[-2]).tril()
    upto = keys.transpose(-2, -1)[..., None, :, :] * seen[:, None]
    states: torch.Tensor = (upto.flatten(-3, -2) @ value).unflatten(-2, upto.shape[-3:-1])
    return states + before[..., None, :, :]


def _through_sigmoid(read: torch.Tensor, keys: torch.Tensor, value: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    # numbers held at a time: the cache of a core, or enough to keep a GPU busy
    held = 1 << (19 if value.device.type == "cpu" else 24)
    step = max(1, held // (value.shape[-2] * before.shape[-2] * before.shape[-1]))
    # from here on, the chunks of all samples and heads are independent
    parts = [x.flatten(0, -3).split(step) for x in (read, keys, value, before)]
    mixed = [
        checkpoint(_read_memories, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(*parts, strict=True)
    ]
    return torch.cat(mixed).reshape(value.shape)


def _read_memories(read: torch.Tensor, keys: torch.Tensor, value: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    states = torch.sigmoid(memories(keys, value, before)).flatten(-3, -2)
    # each position reads its own memory: one product with a block-diagonal matrix
    own = torch.eye(read.shape[-2], dtype=read.dtype, device=read.device)
    return (read[..., :, None, :] * own[:, :, None]).flatten(-2) @ states
