"""The variants of a run that an ablation compares: names of changed options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from captum_astro.options import named_values
from captum_astro.training.options import Options

Variants = Mapping[str, Mapping[str, Any]]

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "no positions": {"relative_position": False},
    "linear": {"alpha": 1.0},
    "neither": {"relative_position": False, "alpha": 1.0},
    "softmax": {"attention": "softmax"},
    "sigma outside": {"nonlinearity": "outside"},
    "sigma none": {"nonlinearity": "none"},
    "no embedding": {"pos_embed": "none"},
    "no order": {"pos_embed": "none", "relative_position": False},
}
"""The paper's ablations, the versions of sigma, and models without the learnt position embedding, which stays in all
others."""


def variants_of(
    words: Iterable[str], alphas: Iterable[float] = (), task: type[Options] = Options
) -> dict[str, dict[str, Any]]:
    """Variants from texts, and the full form with other exponents.

    Args:
        words: A name in `VARIANTS`; or any name and options, ``NAME:OPTION=VALUE:OPTION=VALUE``, which are added to
            those of the name if it is in `VARIANTS`.
        alphas: Exponents.
        task: The task whose options can be given.

    Raises:
        ValueError: If there is no such variant or option, a value is invalid, or a name is given twice.

    Example:
        >>> variants_of(["linear", "wide sigma:scale=96:nonlinearity=inside"], [0.1])
        {'linear': {'alpha': 1.0}, 'wide sigma': {'scale': 96.0, 'nonlinearity': 'inside'}, 'alpha 0.1': {'alpha': 0.1}}
    """
    chosen: dict[str, dict[str, Any]] = {}
    for word in words:
        name, *options = (part.strip() for part in word.split(":"))
        if not name or (name not in VARIANTS and not options):
            raise ValueError(
                f"There is no variant {name!r}. Variants: {', '.join(VARIANTS)}, or your own as NAME:OPTION=VALUE."
            )
        if name in chosen:
            raise ValueError(f"The variant {name!r} is given twice. Give one of them another name.")
        chosen[name] = VARIANTS.get(name, {}) | named_values(name, options, task.kinds())
    return chosen | {f"alpha {alpha:g}": {"alpha": alpha} for alpha in alphas}
