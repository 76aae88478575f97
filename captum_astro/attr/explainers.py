"""The list of all methods, for tables, tests and the command line."""

from __future__ import annotations

from dataclasses import dataclass

from captum_astro.attr._base import Explanation


@dataclass(frozen=True)
class Explainer:
    """One method: its name and class, its family, whether it needs a gradient, and where it was published."""

    name: str
    method: type[Explanation]
    family: str
    needs_gradient: bool
    source: str


def explainers() -> list[Explainer]:
    """All methods that this package exports, in alphabetical order.

    Example:
        >>> [explainer.family for explainer in explainers() if explainer.name == "VTranM"]
        ['attention']
    """
    import captum_astro

    methods = [
        value for value in vars(captum_astro).values() if isinstance(value, type) and issubclass(value, Explanation)
    ]
    return [
        Explainer(method.__name__, method, method.family, method.needs_gradient, method.source)
        for method in sorted(methods, key=lambda method: method.__name__)
    ]
