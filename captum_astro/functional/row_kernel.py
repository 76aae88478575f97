"""A Triton kernel for a row times each head's matrix, with no n x n matrix in memory.

The matrix is recomputed in tiles, from the inputs of the fused attention and the gradient at its output: a first pass
gives each query's log-sum-exp, a second one sums each key's column. No result depends on the order of the programs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from captum_astro.functional.attention import Softmax

try:
    import triton
    import triton.language as tl

    jit: Callable[..., Any] = triton.jit
except ImportError:  # a system without Triton can import this file, and never calls it

    def jit(function: Any = None, **options: Any) -> Any:
        """Leave the function as it is."""
        return jit if function is None else function


# by default Triton compiles again where a number is 1, or divisible by 16, which only helps with strides
_COUNTS = ("heads", "queries", "keys", "width", "value_width")


class _Sizes(NamedTuple):
    """Rows of a tile of queries and of keys, and the padded widths of query and value: powers of 2 from 16."""

    queries: int
    keys: int
    width: int
    value_width: int

    @classmethod
    def of(cls, width: int, value_width: int, half: bool) -> _Sizes:
        """Tiles of at most 16 KiB."""
        widths = [max(16, 1 << (size - 1).bit_length()) for size in (width, value_width)]
        rows = max(16, min(64, 4096 // max(widths)))
        return cls(rows if half else max(16, rows // 2), rows, *widths)


def head_rows(
    row: torch.Tensor,
    part: Softmax,
    entry: str,
    value: torch.Tensor | None = None,
    gradient: torch.Tensor | None = None,
) -> torch.Tensor:
    """A row times each head's matrix ``f(A, dA)`` of one attention map ``A``, with ``dA = dO V^T``.

    Args:
        row: Weights of the queries, ``(B, q)``, or of each head's, ``(B, H, q)``.
        part: The map, of half precision or float32, and of heads no wider than 256.
        entry: ``f``: ``"attention"`` is ``A``, ``"flow"`` ``(A dA)^+``, ``"rise"`` ``dA^+``, ``"size"`` ``|dA|`` and
            ``"square"`` ``dA^2``, the last three 0 where attention is forbidden.
        value: ``V``, ``(B, H, n, d_v)``; not for ``"attention"``.
        gradient: ``dO``, ``(B, H, q, d_v)``; not for ``"attention"``.

    Returns:
        ``(B, H, n)``, float32.
    """
    query, key, bias = _rows_together(part.query), _rows_together(part.key), part.bias
    (batch, heads, queries, width), keys = query.shape, key.shape[2]
    total = torch.zeros(batch, heads, keys, device=query.device)
    if not total.numel() or not queries:
        return total
    given = "none" if bias is None else "mask" if bias.dtype == torch.bool else "bias"
    if bias is not None:
        bias = bias.expand(batch, heads, queries, keys)
        bias = bias.view(torch.uint8) if given == "mask" else bias
    slopes: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
    if entry != "attention":
        assert gradient is not None
        assert value is not None
        slopes = _rows_together(gradient), _rows_together(value)
    value_width = 0 if value is None else value.shape[-1]
    sizes = _Sizes.of(width, value_width, query.element_size() == 2)
    weights = (row if row.ndim == 3 else row[:, None]).float().expand(batch, heads, queries).contiguous()
    norm = torch.empty_like(weights)
    scores = (
        query, key, bias, *query.stride()[:3], *key.stride()[:3], *((0,) * 4 if bias is None else bias.stride()),
        heads, queries, keys, width, float(part.scale), norm,
    )  # fmt: skip
    strides = (stride for x in slopes for stride in ((0,) * 3 if x is None else x.stride()[:3]))
    constants = {
        "given": given, "causal": part.causal, "precision": _precision(query, key), "block_q": sizes.queries,
        "block_k": sizes.keys, "block_d": sizes.width, "num_stages": 2,
        "num_warps": 4 if query.element_size() == 2 else 8,
    }  # fmt: skip
    with torch.cuda.device_of(query):  # Triton launches on the current device
        _log_sum_exp[(batch * heads * triton.cdiv(queries, sizes.queries),)](*scores, **constants)
        _columns[(batch * heads * triton.cdiv(keys, sizes.keys),)](
            *scores, weights, total, *slopes, *strides, value_width,
            entry=entry, slope_precision=_precision(*slopes), block_v=sizes.value_width, **constants,
        )  # fmt: skip
    return total


def _precision(one: torch.Tensor | None, other: torch.Tensor | None) -> str:
    """How two tensors are multiplied, with sums in float32: ``"half"`` as they are, otherwise as float32.

    ``"tf32"`` rounds no more than float16, which the other factor has or had; ``"ieee"`` is float32 itself.
    """
    dtypes = {x.dtype for x in (one, other) if x is not None}
    compiled = isinstance(_product, triton.JITFunction)  # Triton's interpreter cannot multiply bfloat16
    if compiled and len(dtypes) == 1 and dtypes <= {torch.float16, torch.bfloat16}:
        return "half"
    return "ieee" if dtypes == {torch.float32} else "tf32"


def _rows_together(x: torch.Tensor) -> torch.Tensor:
    """The tensor, copied unless the channels of a row are next to each other."""
    return x if x.stride(-1) == 1 else x.contiguous()


@jit
def _tile(pointer, rows, columns, stride, row_count, column_count):
    """Some rows of a matrix; 0 outside it."""
    inside = (rows < row_count)[:, None] & (columns < column_count)[None, :]
    return tl.load(pointer + rows.to(tl.int64)[:, None] * stride + columns[None, :], mask=inside, other=0)


@jit
def _product(one, other, precision: tl.constexpr):
    """The products of the rows of two tiles."""
    if precision == "half":
        found = tl.dot(one, tl.trans(other))
    else:
        found = tl.dot(one.to(tl.float32), tl.trans(other.to(tl.float32)), input_precision=precision)
    return found


@jit
def _scores(
    query, key, bias, stride_q, stride_k, rows, columns, queries, keys, scale,
    given: tl.constexpr, causal: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """What a tile of attention is the exponential of; -inf where it is forbidden, and beyond the last key."""
    found = _product(query, key, precision) * scale
    inside = (rows < queries)[:, None] & (columns < keys)[None, :]
    if given != "none":
        at = bias + rows.to(tl.int64)[:, None] * stride_q + columns.to(tl.int64)[None, :] * stride_k
        added = tl.load(at, mask=inside, other=0)
        if given == "mask":
            found = tl.where(added != 0, found, -float("inf"))
        else:
            found += added.to(tl.float32)
    if causal:
        found = tl.where(columns[None, :] > rows[:, None], -float("inf"), found)
    return tl.where((columns < keys)[None, :], found, -float("inf"))


@jit(do_not_specialize=_COUNTS[:4])
def _log_sum_exp(
    query, key, bias, query_b, query_h, query_i, key_b, key_h, key_j, bias_b, bias_h, bias_i, bias_j,
    heads, queries, keys, width, scale, norm,
    given: tl.constexpr, causal: tl.constexpr, precision: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """The log-sum-exp of the scores of a block of queries; -inf for a query that may attend to nothing."""
    blocks = tl.cdiv(queries, block_q)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = head // heads, head % heads
    rows, channels = (tl.program_id(0) % blocks) * block_q + tl.arange(0, block_q), tl.arange(0, block_d)
    q = _tile(query + b * query_b + h * query_h, rows, channels, query_i, queries, width)
    key += b * key_b + h * key_h
    if given != "none":
        bias += b * bias_b + h * bias_h
    top = tl.full([block_q], -float("inf"), tl.float32)
    total = tl.zeros([block_q], tl.float32)
    for start in range(0, keys, block_k):
        columns = start + tl.arange(0, block_k)
        k = _tile(key, columns, channels, key_j, keys, width)
        found = _scores(q, k, bias, bias_i, bias_j, rows, columns, queries, keys, scale, given, causal, precision)
        larger = tl.maximum(top, tl.max(found, 1))
        finite = tl.where(larger == -float("inf"), 0.0, larger)
        total = total * tl.exp(top - finite) + tl.sum(tl.exp(found - finite[:, None]), 1)
        top = larger
    tl.store(norm + head * queries + rows, top + tl.log(total), mask=rows < queries)


@jit(do_not_specialize=_COUNTS)
def _columns(
    query, key, bias, query_b, query_h, query_i, key_b, key_h, key_j, bias_b, bias_h, bias_i, bias_j,
    heads, queries, keys, width, scale, norm, weights, result, gradient, value,
    gradient_b, gradient_h, gradient_i, value_b, value_h, value_j, value_width,
    given: tl.constexpr, causal: tl.constexpr, precision: tl.constexpr,
    entry: tl.constexpr, slope_precision: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, block_d: tl.constexpr, block_v: tl.constexpr,
):  # fmt: skip
    """The weighted sums over all queries of the entries of a block of keys."""
    blocks = tl.cdiv(keys, block_k)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    b, h = head // heads, head % heads
    columns, channels = (tl.program_id(0) % blocks) * block_k + tl.arange(0, block_k), tl.arange(0, block_d)
    k = _tile(key + b * key_b + h * key_h, columns, channels, key_j, keys, width)
    query += b * query_b + h * query_h
    if given != "none":
        bias += b * bias_b + h * bias_h
    if entry != "attention":
        value_channels = tl.arange(0, block_v)
        v = _tile(value + b * value_b + h * value_h, columns, value_channels, value_j, keys, value_width)
        gradient += b * gradient_b + h * gradient_h
    total = tl.zeros([block_q, block_k], tl.float32)
    for start in range(0, queries, block_q):
        rows = start + tl.arange(0, block_q)
        q = _tile(query, rows, channels, query_i, queries, width)
        row = tl.load(weights + head * queries + rows, mask=rows < queries, other=0)
        own = tl.load(norm + head * queries + rows, mask=rows < queries, other=0)
        found = _scores(q, k, bias, bias_i, bias_j, rows, columns, queries, keys, scale, given, causal, precision)
        found = tl.exp(found - own[:, None])
        if given != "none":
            found = tl.where(found == found, found, 0.0)  # NaN: a query that may attend to nothing  # noqa: PLR0124
        if entry != "attention":
            g = _tile(gradient, rows, value_channels, gradient_i, queries, value_width)
            slopes = _product(g, v, slope_precision)
            if entry == "flow":
                found *= tl.where(slopes < 0, 0.0, slopes)
            elif entry == "rise":
                found = tl.where(found < 1.1754943508222875e-38, 0.0, tl.where(slopes < 0, 0.0, slopes))
            elif entry == "size":
                found = tl.where(found < 1.1754943508222875e-38, 0.0, tl.abs(slopes))
            else:
                found = tl.where(found < 1.1754943508222875e-38, 0.0, slopes * slopes)
        total += tl.where((rows < queries)[:, None], found * row[:, None], 0.0)
    tl.store(result + head * keys + columns, tl.sum(total, 0), mask=columns < keys)
