"""The list of all methods, for tables, tests and the command line."""

from __future__ import annotations

from collections.abc import Sequence
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


def explainers_named(wanted: Sequence[str]) -> dict[str, Explainer]:
    """Methods by name, in the order given, ignoring case.

    Args:
        wanted: Names, or ``all`` alone.

    Raises:
        ValueError: If there is no such method.

    Example:
        >>> list(explainers_named(["vtranm", "LRP"]))
        ['VTranM', 'LRP']
    """
    known = {explainer.name.lower(): explainer for explainer in explainers()}
    if [name.lower() for name in wanted] == ["all"]:
        return {explainer.name: explainer for explainer in known.values()}
    unknown = [name for name in wanted if name.lower() not in known]
    if unknown:
        raise ValueError(
            f"There is no method {unknown[0]!r}. Methods: {', '.join(e.name for e in known.values())}, or 'all'."
        )
    return {known[name.lower()].name: known[name.lower()] for name in wanted}


def explainers() -> list[Explainer]:
    """All methods that this package exports, in alphabetical order.

    Example:
        >>> [explainer.family for explainer in explainers() if explainer.name == "VTranM"]
        ['attention']
    """
    import captum_astro

    public = (getattr(captum_astro, name) for name in dir(captum_astro))
    methods = [value for value in public if isinstance(value, type) and issubclass(value, Explanation)]
    return [
        Explainer(method.__name__, method, method.family, method.needs_gradient, method.source)
        for method in sorted(methods, key=lambda method: method.__name__)
    ]
