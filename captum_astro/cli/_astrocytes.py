"""The option that describes astrocytes in one word."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import nn

    from captum_astro.evaluation.vita.settings import Setting

Vita = Annotated[
    str | None,
    typer.Option(help="Explain the model under astrocytes: k=6,tau=3,phi=-0.5,alpha=1.5,beta=0.05,layer=PATH, any of."),
]


def modulated(model: nn.Module, text: str) -> nn.Module:
    """The model under the astrocytes that ``--vita`` describes."""
    from captum_astro.astro.vita import ViTA

    return ViTA(model, **parsed(text).keywords)


def parsed(text: str) -> Setting:
    """``k=6,tau=3,...`` as a setting; what is not named is as published.

    Raises:
        ValueError: If a name is unknown or a value does not fit it.
    """
    from captum_astro.evaluation.vita.settings import Setting
    from captum_astro.functional.astrocyte import Modulation

    kinds: dict[str, Callable[[str], Any]] = {
        "k": int, "tau": int, "phi": float, "alpha": float, "beta": float, "rescale": str, "counter": str,
        "feedback": _flag, "layer": str, "token": str,
    }  # fmt: skip
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (x.strip() for x in part.partition("="))
        if not equals or name not in kinds:
            raise ValueError(f"--vita {part!r}: it is name=value, with a name of {', '.join(kinds)}.")
        if name in values:
            raise ValueError(f"--vita gives {name} twice.")
        try:
            values[name] = kinds[name](value)
        except ValueError as error:
            raise ValueError(f"--vita {part!r}: {value!r} is no value for {name}.") from error
    layer, token = values.pop("layer", None), values.pop("token", "auto")
    return Setting(Modulation(**values), layer, token)


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"
