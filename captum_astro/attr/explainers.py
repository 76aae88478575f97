"""The list of all methods, for tables, tests and the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from captum_astro.astro.vita import ViTA
from captum_astro.attr._base import Explanation
from captum_astro.attr.vita_grad_cam import ViTAGradCAM
from captum_astro.caller import warn
from captum_astro.options import named_values, options_of

_PUBLISHED = {"tokentm": "VTranM"}  # the paper's name of a method, which is accepted
_OTHER_NAMES = {  # what methods are called elsewhere
    "gradcam": "TokenGradCAM",
    "gradcamplusplus": "TokenGradCAMPlusPlus",
    "chefer": "TransformerMM",
    "genericattention": "TransformerMM",
    "dtd": "TransformerAttribution",
}
_OURS = ("inputs", "target", "additional_forward_args", "internal_batch_size", "attribute_to", "forward_func")


@dataclass(frozen=True)
class Explainer:
    """One method.

    Attributes:
        name: Its name.
        method: Its class.
        family: Its family.
        needs_gradient: Whether it needs a gradient or a class; otherwise it is the same for every class.
        source: Where it was published.
        on_request: Whether it costs many passes, so that ``all`` leaves it out.
    """

    name: str
    method: type[Explanation]
    family: str
    needs_gradient: bool
    source: str
    on_request: bool = False


def explainers_named(wanted: Sequence[str]) -> dict[str, Explainer]:
    """Methods by name, in the order given, ignoring case.

    Args:
        wanted: Names, or ``all`` alone, which leaves out methods that cost many passes. TokenTM, as VTranM was
            published, is accepted.

    Warns:
        UserWarning: If a method has another name here.

    Raises:
        ValueError: If there is no such method. The message names near ones.

    Example:
        >>> list(explainers_named(["vtranm", "LRP"]))
        ['VTranM', 'LRP']
    """
    known = {explainer.name.lower(): explainer for explainer in explainers()}
    if [name.lower() for name in wanted] == ["all"]:
        return {explainer.name: explainer for explainer in known.values() if not explainer.on_request}
    for name in wanted:
        if own := _PUBLISHED.get(name.lower()):
            warn(f"{name} is {own}: its name in the paper.")
            known[name.lower()] = known[own.lower()]
    unknown = [name for name in wanted if name.lower() not in known]
    if unknown:
        names = list(dict.fromkeys(explainer.name for explainer in known.values()))
        near = _near(unknown[0], names)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"There is no method {unknown[0]!r}. Methods: {', '.join(names)}, or 'all'.{meant}")
    return {known[name.lower()].name: known[name.lower()] for name in wanted}


def _near(word: str, names: Sequence[str]) -> list[str]:
    """The methods that a word may mean: by another name, as a part of the name, or with a typing error."""
    plain = re.sub(r"[^a-z+]", "", word.lower()).replace("++", "plusplus")
    if plain in _OTHER_NAMES:
        return [_OTHER_NAMES[plain]]
    by_name = {name.lower(): name for name in names}
    inside = [name for lower, name in by_name.items() if len(plain) > 2 and (plain in lower or lower in plain)]
    return inside or [by_name[name] for name in difflib.get_close_matches(plain, by_name, n=2, cutoff=0.6)]


class Configured(NamedTuple):
    """A method with options: its name followed by them, and the arguments of its constructor and of ``attribute``."""

    name: str
    explainer: Explainer
    building: dict[str, Any]
    calling: dict[str, Any]

    @property
    def has_astrocytes(self) -> bool:
        """Whether it adds its own astrocytes, and is therefore not used for a model that already has some."""
        return issubclass(self.explainer.method, ViTAGradCAM)


def configured(word: str) -> Configured:
    """A method by its name with options after colons, in the grammar of `captum_astro.options`.

    Args:
        word: Such as ``VTranM:output=logit:components=length+direction``.

    Raises:
        ValueError: If there is no such method or option, or a value is invalid.

    Example:
        >>> configured("vtranm:components=length").calling
        {'components': ('length',)}
    """
    name, *parts = (part.strip() for part in word.split(":"))
    explainer = next(iter(explainers_named([name]).values()))
    calls = options_of(explainer.method.attribute, without=_OURS)
    builds = options_of(explainer.method.__init__, without=_OURS)
    if issubclass(explainer.method, ViTAGradCAM):
        builds |= options_of(ViTA.__init__, without=("model", "layer"))
    given = named_values(explainer.name, parts, {**builds, **calls})
    return Configured(
        ":".join([explainer.name, *parts]),
        explainer,
        building={key: value for key, value in given.items() if key not in calls},
        calling={key: value for key, value in given.items() if key in calls},
    )


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
        Explainer(method.__name__, method, method.family, method.needs_gradient, method.source, method.on_request)
        for method in sorted(methods, key=lambda method: method.__name__)
    ]
