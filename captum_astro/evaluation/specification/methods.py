"""The methods of a benchmark: those of the package, optionally with options, and random maps as the chance level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from captum_astro.attr.explainers import Explainer, configured, explainers_named
from captum_astro.attr.vita_grad_cam import ViTAGradCAM
from captum_astro.kinds import Kind, whole
from captum_astro.options import named_values

RANDOM = "Random"
INTEGRATED, OCCLUSION = "IntegratedGradients", "Occlusion"
_FITTED = {"samples": whole(2, 10**6)}
_OPTIONS: dict[str, dict[str, Kind]] = {
    RANDOM: {}, INTEGRATED: {}, OCCLUSION: {}, "Lime": _FITTED, "KernelShap": _FITTED
}  # fmt: skip
CAPTUM = tuple(name for name in _OPTIONS if name != RANDOM)
_OTHERS = {name.lower(): name for name in _OPTIONS}


@dataclass(frozen=True)
class Method:
    """One method of a benchmark.

    Attributes:
        name: The name in the rows: that of the method, followed by its options.
        explainer: The method; None for random maps and for Captum's methods.
        building: Arguments of its constructor.
        calling: Arguments of ``attribute``.
    """

    name: str
    explainer: Explainer | None
    building: dict[str, Any] = field(default_factory=dict)
    calling: dict[str, Any] = field(default_factory=dict)

    @property
    def of_class(self) -> bool:
        """Whether maps for two classes differ."""
        return self.name != RANDOM if self.explainer is None else self.explainer.needs_gradient

    @property
    def has_astrocytes(self) -> bool:
        """Whether it adds its own astrocytes, and is therefore not used for a model that already has some."""
        return self.explainer is not None and issubclass(self.explainer.method, ViTAGradCAM)


def methods_of(words: str | Sequence[str]) -> tuple[Method, ...]:
    """Methods by name, optionally with options.

    Args:
        words: Comma-separated, or a list: ``all`` (with `Random`), a name, or a name with options after colons, such as
            ``VTranM:output=logit:components=length+direction``; for the grammar see `captum_astro.options`.
            Captum's ``IntegratedGradients``, ``Occlusion``, ``Lime`` and ``KernelShap`` (the last two with the option
            ``samples``), and methods that cost many passes (ViTCX) are not part of ``all``.

    Raises:
        ValueError: If there is no such method or option, a value is invalid, or a name is repeated.

    Example:
        >>> [method.name for method in methods_of("lrp, vtranm:components=:output=logit")]
        ['LRP', 'VTranM:components=:output=logit']
        >>> methods_of("VTranM:components=length")[0].calling
        {'components': ('length',)}
    """
    given = [word.strip() for word in (words.split(",") if isinstance(words, str) else words)]
    chosen: list[Method] = []
    for word in given:
        if word.lower() == "all":
            usual = explainers_named(["all"]).values()
            chosen += [Method(explainer.name, explainer) for explainer in usual] + [Method(RANDOM, None)]
        else:
            chosen.append(_method(word))
    names = [method.name for method in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"The method {twice} is given twice.")
    return tuple(chosen)


def _method(word: str) -> Method:
    first, *parts = (part.strip() for part in word.split(":"))
    name = _OTHERS.get(first.lower())
    if first.lower() == "all" or (name is not None and parts and not _OPTIONS[name]):
        raise ValueError(f"{first} takes no options: {word!r}.")
    if name is None:
        return Method(*configured(word))
    return Method(":".join([name, *parts]), None, calling=named_values(name, parts, _OPTIONS[name]))
