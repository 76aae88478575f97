"""Model-parameter randomisation: does the map change when the model forgets what it has learnt?

A map that stays the same shows the image, not the model. Layers are randomised one after the other from the output
down (cascading), or each one alone.

Sources: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018 (arXiv 1810.03292), section 3; Hedström et al.,
"Sanity checks revisited", 2024 (arXiv 2401.06465), for the order of the layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from captum_astro.metrics.alignment import spearman
from captum_astro.metrics.declaration import CurvePlot, Given, Metric, Scores
from captum_astro.metrics.registry import register

_AXIS = "size of Spearman's correlation, %"


def randomisation(maps: torch.Tensor, randomised: torch.Tensor) -> torch.Tensor:
    """Spearman's rank correlation between a map and those of the randomised models, layer by layer.

    Args:
        maps: ``(B, H, W)``, of the trained model.
        randomised: ``(B, layers, H, W)``, of the randomised ones.

    Returns:
        ``(B, layers)`` float64, from -1 to 1; the mean of its size over layers is the score, near 0 is better. 0 where
        a randomised model gives a constant map.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        >>> maps = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
        >>> randomisation(maps, torch.stack([maps, -maps], 1))
        tensor([[ 1., -1.]], dtype=torch.float64)
    """
    if randomised.ndim != 4 or (len(randomised), *randomised.shape[2:]) != maps.shape:
        raise ValueError(f"randomised: (B, layers, H, W) for maps {tuple(maps.shape)}, not {tuple(randomised.shape)}.")
    return torch.stack([spearman(one, maps).nan_to_num(0.0) for one in randomised.unbind(1)], 1)


def _cascading(given: Given) -> Scores:
    return _scores(given, cascading=True)


def _one_layer(given: Given) -> Scores:
    return _scores(given, cascading=False)


def _scores(given: Given, *, cascading: bool) -> Scores:
    sizes = randomisation(given.maps, given.randomised(cascading).to(given.maps)).abs()
    return Scores(sizes.mean(1), sizes)


def _declare(name: str, compute: Callable[[Given], Scores], title: str, meaning: str) -> None:
    register(
        Metric(
            name,
            compute,
            needs=("classes", "pixels", "randomised"),
            direction=-1,
            kind="randomisation",
            plot=CurvePlot(f"{title}; the {{explained}} class", _AXIS, "depth from output (0) to input (100)"),
            constant=torch.nan,
            on_request=True,
            ranks=False,  # noise passes it
            meaning=f"Rank correlation with the map of a model whose layers are random, {meaning}.",
        )
    )


_declare(
    "cascading randomisation",
    _cascading,
    "Layers randomised from the output down",
    "one more at a time: near 0 if the map depends on what is learnt",
)
_declare(
    "layer randomisation",
    _one_layer,
    "One layer randomised at a time, from the output down",
    "each alone: near 0 if the map depends on it",
)
