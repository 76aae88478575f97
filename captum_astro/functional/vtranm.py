"""VTranM: the relevance of each token from attention and from how its vector is transformed.

Source: Wu, Duan, Kang, Tang, Yan, "Token Transformation Matters: Towards Faithful Post-hoc Explanation for Vision
Transformer", CVPR 2024 (arXiv 2403.14552), where the measure is called TokenTM. Equation numbers are the paper's.

With ``E`` the residual stream, ``E~_h`` the vector that head h adds per unit of attention, ``A_h`` its attention map
and ``p`` the explained output, each layer has an update matrix, and a row of their product is the result::

    C_0 = diag(|E_0|)
    attention:     U = I + gain * mean_h [ relu(dp/dA_h) * A_h W_h ],  W_h = diag(|E~_h| / |E| * NECC_h)
    feed-forward:  U = I + W,                                          W   = diag(|E~| / |E| * NECC)
    NECC = softmax over the tokens of cos(E, E~)

No n x n map for all heads, and no n x d vector for each head, is ever formed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from captum_astro.functional.attention import CHUNK_ELEMENTS, Attention, attention_gradient, widen
from captum_astro.functional.head_rows import head_rows

COMPONENTS = ("length", "direction")


def initial_lengths(stream: torch.Tensor, components: Collection[str] = COMPONENTS) -> torch.Tensor:
    """The diagonal of ``C_0``: each token's initial length, or 1 without the length component.

    Args:
        stream: ``E_0``, ``(B, n, d)``.
        components: A subset of `COMPONENTS`.

    Returns:
        ``(B, n)``.
    """
    lengths = widen(stream).norm(dim=-1)
    return lengths if "length" in components else torch.ones_like(lengths)


def head_weights(
    stream: torch.Tensor,
    value: torch.Tensor,
    output_map: torch.Tensor,
    components: Collection[str] = COMPONENTS,
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    """The diagonal of ``W_h`` for every head, with ``E~_h = value_h output_map_h`` never formed.

    Its squared length is ``v^T (M M^T) v`` and its product with ``E`` is ``v . (M E)``: small matrices.

    Args:
        stream: ``E``, ``(B, n, d)``. If it has another width than what is added, as where the stream is replaced, no
            direction can be compared, and NECC is the same for all tokens.
        value: ``(B, H, n, d_v)``.
        output_map: ``M``, from each head's output to the residual stream, ``(H, d_v, d)``; ``(B, H, d_v, d)`` if it
            depends on the sample.
        components: A subset of `COMPONENTS`.
        present: Which keys are tokens and not padding, ``(groups, n)`` bool, for ``B = images * groups``; NECC is a
            softmax over those.

    Returns:
        ``(B, H, n)``; ones without a component.
    """
    # products with a slice of a fused projection are several times slower than with a copy of it
    stream, value, output_map = widen(stream), widen(value).contiguous(), widen(output_map)
    batch, heads, tokens, width = value.shape
    weights = value.new_ones(batch, heads, tokens)
    if not components:
        return weights
    absent = None if present is None else ~present.repeat(batch // len(present), 1)[:, None]
    gram = output_map @ output_map.transpose(-2, -1)
    length = (value @ gram).mul_(value).sum(-1).clamp_min(0).sqrt()
    own = stream.norm(dim=-1)[:, None]
    if "length" in components:
        weights = weights * _ratio(length, own)
    if "direction" in components:
        if stream.shape[-1] == output_map.shape[-1]:
            seen = stream @ output_map.flatten(-3, -2).transpose(-2, -1)
            dot = (seen.reshape(batch, tokens, heads, width).transpose(1, 2) * value).sum(-1)
            cosine = _ratio(dot, length * own).clamp(-1, 1)
        else:
            cosine = torch.zeros_like(length)
        weights = weights * (cosine if absent is None else cosine.masked_fill(absent, -torch.inf)).softmax(-1)
    return weights if absent is None else weights.masked_fill(absent, 0)


def gated_weights(
    stream: torch.Tensor,
    value: torch.Tensor,
    output_map: torch.Tensor,
    gate: torch.Tensor,
    components: Collection[str] = COMPONENTS,
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `head_weights`, where a gate multiplies each query's output, so that a token's vector depends on the query.

    Args:
        stream: ``E``, ``(B, n, d)``; of another width as in `head_weights`.
        value: ``(B, H, n, d_v)``.
        output_map: ``(H, d_v, d)`` or ``(B, H, d_v, d)``.
        gate: The factors of some queries, ``(B, H, rows, d_v)``.
        components: A subset of `COMPONENTS`.
        present: As in `head_weights`.

    Returns:
        ``(B, H, rows, n)``.
    """
    stream, value, output_map, gate = (widen(x) for x in (stream, value, output_map, gate))
    weights = value.new_ones(*gate.shape[:3], value.shape[2])
    if not components:
        return weights
    absent = None if present is None else ~present.repeat(len(value) // len(present), 1)[:, None, None]
    gram = (output_map @ output_map.transpose(-2, -1)).unsqueeze(-3)
    factors = (gate[..., :, None] * gate[..., None, :]).flatten(-2)
    step = max(1, 4 * CHUNK_ELEMENTS // value[:, :, :1].numel() // value.shape[3])  # pairs of channels are many
    squares = [
        factors @ (keys[..., :, None] * keys[..., None, :] * gram).flatten(-2).transpose(-2, -1)
        for keys in value.split(step, 2)
    ]
    length = torch.cat(squares, -1).clamp_min(0).sqrt()
    own = stream.norm(dim=-1)[:, None, None]
    if "length" in components:
        weights = weights * _ratio(length, own)
    if "direction" in components:
        if stream.shape[-1] == output_map.shape[-1]:
            seen = stream[:, None] @ output_map.transpose(-2, -1)
            cosine = _ratio(gate @ (seen * value).transpose(-2, -1), length * own).clamp(-1, 1)
        else:
            cosine = torch.zeros_like(length)
        weights = weights * (cosine if absent is None else cosine.masked_fill(absent, -torch.inf)).softmax(-1)
    return weights if absent is None else weights.masked_fill(absent, 0)


def feed_forward_weights(
    stream: torch.Tensor, output: torch.Tensor, components: Collection[str] = COMPONENTS
) -> torch.Tensor:
    """The diagonal of a feed-forward layer's ``W``.

    Args:
        stream: ``E``, ``(B, n, d)``.
        output: ``E~``, what the layer adds, ``(B, n, d)``.
        components: A subset of `COMPONENTS`.

    Returns:
        ``(B, n)``; zeros without a component, as the layer then has no update.
    """
    stream, output = widen(stream), widen(output)
    own, length = stream.norm(dim=-1), output.norm(dim=-1)
    weights = torch.ones_like(own) if components else torch.zeros_like(own)
    if "length" in components:
        weights = weights * _ratio(length, own)
    if "direction" in components:
        weights = weights * _ratio((stream * output).sum(-1), length * own).clamp(-1, 1).softmax(-1)
    return weights


def attention_update(
    rows: torch.Tensor,
    attention: Attention,
    gradient: torch.Tensor,
    weights: torch.Tensor | Callable[[slice], torch.Tensor],
    query_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Rows times an attention layer's matrix without its identity: ``R mean_h [relu(dp/dA_h) * A_h W_h]`` (Eq. 14).

    Args:
        rows: ``R``, some rows of the product so far, ``(B, m, q)`` with q the number of queries; or one, ``(B, q)``.
        attention: The layer.
        gradient: ``dp/dO`` at the heads' outputs, ``(B, H, q, d_v)``.
        weights: From `head_weights`, ``(B, H, n)``; or those of a slice of the queries, as from `gated_weights`.
        query_scale: The factor by which a norm after the heads multiplies each query's output, ``(B, 1 or H, q)``.

    Returns:
        ``(B, m, n)``, or ``(B, n)`` for one row. Add ``R`` for the matrix with its identity.
    """
    single = rows.ndim == 2
    if single and isinstance(weights, torch.Tensor):
        scaled = rows if query_scale is None else rows[:, None] * query_scale
        return (head_rows(scaled, attention, "gain", gradient) * weights).mean(1)
    several = rows[:, None] if single else rows
    value = widen(attention.value).contiguous()
    total = value.new_zeros(*several.shape[:2], value.shape[2])
    for chunk, probabilities in attention.chunks():
        update = attention_gradient(gradient[:, :, chunk], value).clamp_(min=0).mul_(probabilities)
        if query_scale is not None:
            update.mul_(query_scale[:, :, chunk, None])
        update.mul_(weights[:, :, None] if isinstance(weights, torch.Tensor) else weights(chunk))
        total += several[:, :, chunk] @ update.mean(1)
    return total[:, 0] if single else total


def _ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """A quotient that is 0 where the denominator is 0: a token of zero length has no direction and no gain."""
    return torch.where(denominator > 0, numerator / denominator, torch.zeros_like(numerator))
