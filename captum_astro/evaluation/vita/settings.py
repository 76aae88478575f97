"""Settings of ViTA to search over, each with a layer and a rule."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from captum_astro.astro.astrocytic_linear import Token
from captum_astro.functional.astrocyte import Counter, Modulation, Rescale


@dataclass(frozen=True)
class Setting:
    """Where astrocytes act, and how.

    Attributes:
        modulation: The rule.
        layer: The dotted path of the linear layer; None for the output projection of the first attention.
        token: The monitored token, as in `captum_astro.ViTA`.
    """

    modulation: Modulation
    layer: str | None = None
    token: Token = "auto"

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Setting:
        """The setting from arguments of `captum_astro.ViTA`; those not given have their published values."""
        rule = {name: value for name, value in keywords.items() if name not in ("layer", "token")}
        return cls(Modulation(**rule), keywords.get("layer"), keywords.get("token", "auto"))

    @property
    def keywords(self) -> dict[str, Any]:
        """Arguments of `captum_astro.ViTA` after the model."""
        return {**vars(self.modulation), "layer": self.layer, "token": self.token}


def grid(
    *,
    layer: Sequence[str | None] = (None,),
    k: Sequence[int] = (4, 6, 8),
    tau: Sequence[int] = (2, 3),
    phi: Sequence[float] = (-1.0, -0.5, 0.0, 0.5),
    alpha: Sequence[float] = (1.25, 1.5, 2.0),
    beta: Sequence[float] = (0.05, 0.005),
    rescale: Rescale = "length",
    counter: Counter = "saturating",
) -> list[Setting]:
    """Every combination: 144 by default, around the published values.

    Published are k 4, 6 and 8, alpha 1.5 among others, beta 0.05 and 0.005, and phi -0.5; tau 2 and 3 are those of the
    earlier neuron-glia networks. The other values are our choice.

    Args:
        layer: Paths of linear layers; None is the output projection of the first attention.
        k: Steps.
        tau: Counts at which an astrocyte acts.
        phi: Thresholds of activity.
        alpha: Factors for active neurons.
        beta: Factors for inactive neurons.
        rescale: As in `captum_astro.astro.Modulation`.
        counter: As in `captum_astro.astro.Modulation`.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> len(grid()), len(grid(layer=["blocks.0.attn.proj", "blocks.0.mlp.fc1"], k=[6], tau=[3]))
        (144, 48)
    """
    return [
        Setting(Modulation(k=k_, tau=tau_, phi=phi_, alpha=alpha_, beta=beta_, rescale=rescale, counter=counter), path)
        for path, k_, tau_, phi_, alpha_, beta_ in itertools.product(layer, k, tau, phi, alpha, beta)
    ]


def at_layers(settings: Sequence[Setting], layers: Sequence[str | None]) -> list[Setting]:
    """Every setting at every layer, layer by layer.

    Args:
        settings: The settings, whose own layers do not count.
        layers: Paths of linear layers; one that is repeated counts once.

    Example:
        >>> [(s.layer, s.modulation.k) for s in at_layers(grid(k=[4], tau=[2], phi=[0], alpha=[1], beta=[0.5]), "ab")]
        [('a', 4), ('b', 4)]
    """
    return [replace(setting, layer=layer) for layer in dict.fromkeys(layers) for setting in settings]
