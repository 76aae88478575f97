"""Operation counts of attention: multiply-adds, exponentials, and the state of a causal reader, as functions of n.

For one layer of width D with H heads of m hidden units and ``d = D / H`` value channels, one sample of n tokens::

                     astromorphic                          softmax
    projections      n D (2 H m + D)   [+ n D^2]           n D (3 D) + n D^2
    mixing           2 n H m d                             2 n^2 D             causal: n (n + 1) D
    normaliser       n H m                                 n^2 H               causal: n (n + 1) H / 2, additions
    positions        H N m (2 c + m) + H n m^2, once a batch
    exponentials     2 n H m, + n H m with positions,      n^2 H               causal: n (n + 1) H / 2
                     + H m d with sigma (causal: + n H m d)
    state            H m d + H m                           2 n D

c is the chunk of the position kernel's recurrence, 128. The state is what must be kept to read the next token: the
memory and the calcium, or all keys and values. Causal softmax is counted by what it needs; a kernel that computes the
whole square and masks half of it does twice that. Sources: arXiv 2312.10925, Eq. 9 to 17, and the implementation in
`captum_astro.functional.astromorphic`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from captum_astro.functional.astromorphic import Nonlinearity

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 128


@dataclass(frozen=True)
class Cost:
    """Operation counts of one attention layer on one sample, forward.

    Attributes:
        projections: Multiply-adds to queries, keys, values and after the heads.
        mixing: Multiply-adds between tokens, or into and out of the memory.
        normaliser: Multiply-adds (for softmax additions) of the normaliser of the outputs.
        positions: Multiply-adds for the position keys; done once per batch, whatever its size.
        exponentials: Evaluations of exp, in feature maps, softmax and sigmoids.
        state: Numbers that a causal reader keeps between tokens.
    """

    projections: int
    mixing: int
    normaliser: int
    positions: int
    exponentials: int
    state: int

    @property
    def multiply_adds(self) -> int:
        """The sum of all multiply-adds."""
        return self.projections + self.mixing + self.normaliser + self.positions


def astromorphic_cost(
    tokens: int,
    dim: int,
    heads: int,
    *,
    hidden_dim: int | None = None,
    nonlinearity: Nonlinearity = "inside",
    relative_position: bool = True,
    output_projection: bool = False,
    causal: bool = False,
    places: int | None = None,
) -> Cost:
    """Count an `AstromorphicAttention` layer.

    The causal form without sigma is counted as its recurrence; in chunks, as it is computed, it is more by
    ``n H (c - 1)(m + d)`` with chunks of c.

    Args:
        tokens: n.
        dim: D.
        heads: H, divides ``dim``.
        hidden_dim: m; by default ``dim / heads``.
        nonlinearity: Where sigma is applied.
        relative_position: Whether astrocytes write.
        output_projection: Whether a linear map follows the heads.
        causal: Whether token t sees only tokens up to t.
        places: N, the number of positions in the position memory; by default n.

    Raises:
        ValueError: If a number is below 1, or ``heads`` does not divide ``dim``.

    Example:
        >>> cost = astromorphic_cost(1000, 64, 4, relative_position=False)
        >>> cost.mixing, cost.state
        (2048000, 1088)
    """
    _check(tokens, dim, heads)
    d = dim // heads
    m = hidden_dim or d
    places = tokens if places is None else places
    sigmoids = 0 if nonlinearity == "none" else heads * m * d * (tokens if causal else 1)
    positions = 0
    if relative_position:
        # P from both sides, M P M^T, and M^T times it
        positions = 2 * heads * m * _recurrence(places) + heads * places * m * m + heads * tokens * m * m
    return Cost(
        projections=tokens * dim * (2 * heads * m + dim) + output_projection * tokens * dim * dim,
        mixing=2 * tokens * heads * m * d,
        normaliser=tokens * heads * m,
        positions=positions,
        exponentials=2 * tokens * heads * m + sigmoids + relative_position * tokens * heads * m,
        state=heads * m * d + heads * m,
    )


def softmax_cost(tokens: int, dim: int, heads: int, *, causal: bool = False) -> Cost:
    """Count a softmax attention layer with its output projection.

    Args:
        tokens: n.
        dim: D.
        heads: H, divides ``dim``.
        causal: Whether token t sees only tokens up to t.

    Raises:
        ValueError: If a number is below 1, or ``heads`` does not divide ``dim``.

    Example:
        >>> softmax_cost(1000, 64, 4).mixing, softmax_cost(1000, 64, 4).state
        (128000000, 128000)
    """
    _check(tokens, dim, heads)
    pairs = tokens * (tokens + 1) // 2 if causal else tokens**2
    return Cost(
        projections=4 * tokens * dim * dim,
        mixing=2 * pairs * dim,
        normaliser=pairs * heads,
        positions=0,
        exponentials=pairs * heads,
        state=2 * tokens * dim,
    )


def equal_length(dim: int, heads: int, *, causal: bool = False, relative_position: bool = True) -> int:
    """The smallest n from which astromorphic attention needs fewer multiply-adds than softmax.

    Args:
        dim: D.
        heads: H, divides ``dim``.
        causal: Whether both are causal.
        relative_position: Whether astrocytes write; positions are counted for a batch of one.

    Example:
        >>> equal_length(64, 4, relative_position=False)
        1
    """

    def cheaper(n: int) -> bool:
        ours = astromorphic_cost(n, dim, heads, causal=causal, relative_position=relative_position)
        return ours.multiply_adds < softmax_cost(n, dim, heads, causal=causal).multiply_adds

    # both are polynomials except for the recurrence's steps: their difference changes sign once
    high = 1
    while not cheaper(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cheaper(middle) else (middle, high)
    return high


def cost_table(lengths: Iterable[int], dim: int, heads: int, *, causal: bool = False) -> pd.DataFrame:
    """Both for several lengths, a row each: columns of `Cost`, ``tokens``, ``attention`` and ``multiply_adds``.

    Args:
        lengths: Values of n.
        dim: D.
        heads: H.
        causal: Whether both are causal.
    """
    import pandas as pd

    rows = []
    for tokens in lengths:
        for name, cost in (
            ("astromorphic", astromorphic_cost(tokens, dim, heads, causal=causal)),
            ("softmax", softmax_cost(tokens, dim, heads, causal=causal)),
        ):
            rows.append({"tokens": tokens, "attention": name, "multiply_adds": cost.multiply_adds} | asdict(cost))
    return pd.DataFrame(rows)


def _recurrence(length: int) -> int:
    """Multiply-adds of one direction of `functional.astromorphic_positions.decayed` for one unit."""
    chunk = max(2, min(_CHUNK, length))
    chunks = math.ceil(length / chunk)
    return chunks * chunk * chunk + (_recurrence(chunks) if chunks > 1 else 0)


def _check(tokens: int, dim: int, heads: int) -> None:
    if min(tokens, dim, heads) < 1:
        raise ValueError(f"tokens, dim and heads must be at least 1, not {tokens}, {dim} and {heads}.")
    if dim % heads:
        raise ValueError(f"heads must divide dim, but {heads} does not divide {dim}.")
