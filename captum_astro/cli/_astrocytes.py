"""The option that describes astrocytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from captum_astro.cli._common import option

if TYPE_CHECKING:
    from torch import nn

Vita = Annotated[
    str | None,
    option(
        "Explain the model under astrocytes: any of k, tau, phi, alpha, beta and layer, as in k=6,tau=3.",
        metavar="OPTIONS",
    ),
]


def modulated(model: nn.Module, text: str) -> nn.Module:
    """The model under the astrocytes that ``--vita`` describes."""
    from captum_astro.astro.vita import ViTA

    return ViTA(model, **vita_options(text))


def vita_options(text: str) -> dict[str, Any]:
    """Parse ``k=6,tau=3,...`` into arguments of `captum_astro.ViTA`; options not given have their published values.

    Raises:
        ValueError: If a name is unknown or a value is invalid.
    """
    from captum_astro.astro.vita import ViTA
    from captum_astro.options import named_values, options_of

    parts = [part for part in text.replace(":", ",").split(",") if part.strip()]
    return named_values("--vita", parts, options_of(ViTA.__init__, without=["model"]))
