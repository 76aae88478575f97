"""ROAD, remove and debias: pixels are removed by replacing them with noisy averages of what surrounds them.

A black patch is a shape that the model may see; a smooth patch tells it less.

Source: Rong et al., "A consistent and efficient evaluation strategy for attribution methods", ICML 2022 (arXiv
2202.00449). The averages are the solution of a linear system, by Quantus.
"""

from __future__ import annotations

from typing import Any

import torch

from captum_astro.extras import require
from captum_astro.metrics.declaration import RANDOM_MAPS, Given, Metric, Scores
from captum_astro.metrics.perturbation import top_choice_is
from captum_astro.metrics.registry import register
from captum_astro.metrics.removal import ranks

_TENTHS = (1, 2, 3, 4, 5, 7, 9)
SHARES = tuple(tenths / 10 for tenths in _TENTHS)


def imputed(image: torch.Tensor, gone: torch.Tensor, noise: float = 0.01, seed: int = 0) -> torch.Tensor:
    """An image whose removed pixels are noisy averages of their neighbours, all channels alike.

    Args:
        image: ``(C, H, W)``, of any scale.
        gone: ``(H, W)`` bool, True for removed pixels.
        noise: Standard deviation of the noise on removed pixels, in units of the image.
        seed: Random seed of the noise.

    Returns:
        ``(C, H, W)``, with the image's dtype and device; zeros, with noise, if nothing is left to average.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        >>> image = torch.tensor([[[1.0, 0.0, 3.0]]])
        >>> imputed(image, torch.tensor([[False, True, False]]), noise=0)
        tensor([[[1., 2., 3.]]])
    """
    if image.ndim != 3 or gone.shape != image.shape[1:]:
        raise ValueError(f"image (C, H, W) and gone (H, W): not {tuple(image.shape)} and {tuple(gone.shape)}.")
    if not gone.any():
        return image
    require("ROAD", "quantus")
    from quantus.functions.perturb_func import noisy_linear_imputation

    indices: Any = gone.flatten().nonzero()[:, 0].cpu().numpy()
    values = noisy_linear_imputation(image.detach().cpu().numpy(), indices, noise=0)
    found = torch.from_numpy(values).flatten(1)
    drawn = torch.randn(len(image), len(indices), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found[:, indices] += noise * drawn.to(found)
    return found.reshape(image.shape).to(image)


def removed(maps: torch.Tensor, pixels: torch.Tensor, noise: float = 0.01) -> torch.Tensor:
    """Images without their most important pixels, at every share of `SHARES`, 10 to 90 %.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale; ties are broken as in `removal.ranks`.
        pixels: ``(B, C, H, W)``.
        noise: As for `imputed`.

    Returns:
        ``(B, shares, C, H, W)``.

    Raises:
        ValueError: If the shapes do not match, or a value of a map is NaN or infinite.
    """
    order = ranks(maps).cpu()
    count = order.shape[1]
    found = []
    for image, places in zip(pixels, order, strict=True):
        gone = [places >= count - count * tenths // 10 for tenths in _TENTHS]  # exact, where int(330 * 0.7) is 230
        found.append(
            torch.stack([imputed(image, each.reshape(image.shape[1:]), noise, k) for k, each in enumerate(gone)])
        )
    return torch.stack(found) if found else pixels.new_zeros(0, len(SHARES), *pixels.shape[1:])


def _road(given: Given) -> Scores:
    curves = []
    for i in range(len(given.maps)):  # the systems of one map at a time are in memory
        pictures = removed(given.maps[i, None], given.pixels[i, None])[0]
        owners = torch.full((len(pictures),), i, device=pictures.device)
        logits = given.answers(pictures, owners).cpu()
        curves.append(top_choice_is(logits[None], given.classes[i, None])[0])
    kept = torch.stack(curves) if curves else torch.zeros(0, len(SHARES), dtype=torch.float64)
    return Scores(kept.mean(1), kept)


register(
    Metric(
        "ROAD",
        _road,
        needs=("classes", "logits", "pixels", "answers"),
        direction=-1,
        kind="perturbation",
        percent=True,
        chance=RANDOM_MAPS,
        constant=torch.nan,
        on_request=True,
        meaning="Share of the levels at which the class is still chosen, as important pixels are smoothed away.",
    )
)
