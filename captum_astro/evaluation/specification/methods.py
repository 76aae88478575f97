"""The methods of a benchmark: those of the package, with options if wanted, and random maps as the chance level."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from captum_astro.attr.explainers import Explainer, explainers, explainers_named

RANDOM = "Random"
_OURS = ("self", "inputs", "target", "additional_forward_args", "internal_batch_size", "attribute_to", "forward_func")


@dataclass(frozen=True)
class Method:
    """One method of a benchmark.

    Attributes:
        name: As in the rows: the method's, followed by its options.
        explainer: The method; None for random maps.
        building: What its constructor is given.
        calling: What ``attribute`` is given.
    """

    name: str
    explainer: Explainer | None
    building: dict[str, Any] = field(default_factory=dict)
    calling: dict[str, Any] = field(default_factory=dict)

    @property
    def of_class(self) -> bool:
        """Whether maps for two classes differ."""
        return self.explainer is not None and self.explainer.needs_gradient


def methods_of(words: str | Sequence[str]) -> tuple[Method, ...]:
    """Methods by name, each with options if wanted.

    Args:
        words: With commas, or a list: ``all`` (with `Random`), a name, or a name with options after colons, as
            ``VTranM:output=logit:components=length+direction``. Of values, ``a+b`` is a tuple of two, nothing is an
            empty one.

    Raises:
        ValueError: If there is no such method or option, or a name is given twice.

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
            chosen += [Method(explainer.name, explainer) for explainer in explainers()] + [Method(RANDOM, None)]
        elif word.lower() == RANDOM.lower():
            chosen.append(Method(RANDOM, None))
        else:
            chosen.append(_method(word))
    names = [method.name for method in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"The method {twice} is given twice.")
    return tuple(chosen)


def _method(word: str) -> Method:
    name, *options = (part.strip() for part in word.split(":"))
    if name.lower() in ("all", RANDOM.lower()):
        raise ValueError(f"{name} takes no options: {word!r}.")
    explainer = next(iter(explainers_named([name]).values()))
    calls = _options(explainer.method.attribute)
    builds = _options(explainer.method.__init__)
    building: dict[str, Any] = {}
    calling: dict[str, Any] = {}
    for option in options:
        key, equals, text = (part.strip() for part in option.partition("="))
        if not equals or (key not in calls and key not in builds):
            raise ValueError(f"{explainer.name} has no option {option!r}. Options: {', '.join({**calls, **builds})}.")
        if key in calls:
            calling[key] = _value(text, calls[key])
        else:
            building[key] = _value(text, builds[key])
    return Method(":".join([explainer.name, *options]), explainer, building, calling)


def _options(function: Any) -> dict[str, str]:
    """The options of a function, with their annotations."""
    from captum_astro.functional.astrocyte import Modulation

    found: dict[str, str] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:  # of ViTA
            found |= dict.fromkeys([*inspect.signature(Modulation).parameters, "token"], "")
        elif name not in _OURS:
            found[name] = str(parameter.annotation)
    return found


def _value(text: str, annotation: str) -> Any:
    if text.lower() != "none" and (annotation.startswith(("Collection", "Iterable")) or "+" in text):
        return tuple(_single(part) for part in text.split("+") if part)
    return _single(text)


def _single(text: str) -> Any:
    known: dict[str, Any] = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return text
