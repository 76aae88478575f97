"""An estimate of the energy of attention: counted operations times published energies per operation.

Source: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, for 45 nm at 0.9 V. It is an
estimate of arithmetic alone: moving data, which may cost far more than computing with it, is not counted.
"""

from __future__ import annotations

from typing import Literal

from captum_astro.models.counts import Cost

Precision = Literal["float32", "float16"]
# picojoules of a multiplication and of an addition
PICOJOULES: dict[Precision, tuple[float, float]] = {"float32": (3.7, 0.9), "float16": (1.1, 0.4)}


def energy_per_token(cost: Cost, tokens: int, precision: Precision = "float32", exponential: int = 10) -> float:
    """The arithmetic energy of one attention layer, a token.

    Args:
        cost: From `captum_astro.models.counts`, for the whole sequence.
        tokens: The length of the sequence.
        precision: Of the operations.
        exponential: Multiply-adds that an exponential is counted as: an assumption, as for a polynomial.

    Returns:
        Nanojoules.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from captum_astro.models.counts import softmax_cost
        >>> round(energy_per_token(softmax_cost(4096, 192, 3), 4096))
        8535
    """
    if precision not in PICOJOULES:
        raise ValueError(f"precision must be {' or '.join(PICOJOULES)}, not {precision!r}.")
    if tokens < 1 or exponential < 0:
        raise ValueError(f"tokens must be at least 1 and exponential at least 0, not {tokens} and {exponential}.")
    operations = cost.multiply_adds + exponential * cost.exponentials
    return operations * sum(PICOJOULES[precision]) / tokens / 1000
