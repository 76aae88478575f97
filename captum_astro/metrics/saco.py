"""SaCo, the salience-guided faithfulness coefficient: do pixels with higher salience matter more to the model?

Source: Wu et al., "On the faithfulness of vision transformer explanations", CVPR 2024 (arXiv 2404.01415), Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from captum_astro.metrics._maps import finite_maps
from captum_astro.metrics.declaration import Metric
from captum_astro.metrics.registry import register

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def saco(maps: torch.Tensor, images: torch.Tensor, predict: Predict, groups: int = 10) -> torch.Tensor:
    """Score each map by hiding one group of pixels after the other and running the model.

    The pixels, sorted by decreasing salience (ties in order of position), form ``groups`` groups of equal size, or
    sizes that differ by one if the number of pixels is not divisible. Each group in turn is replaced by the image's
    mean colour; all such images of the batch are run in one call. The output for the unperturbed image cancels in the
    score and is not needed.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        images: ``(B, C, H, W)``, as ``predict`` takes them; normalisation makes no difference.
        predict: Takes N images ``(N, C, H, W)`` and the index in the batch ``(N,)`` of the image that each was made
            from, and returns the probability ``(N,)`` of that image's explained class. N is B times ``groups``.
        groups: The number of groups, at least 2.

    Returns:
        ``(B,)`` float64, from -1 to 1, higher is better; a random order of the pixels scores 0 on average. NaN for a
        constant map or one with NaN or infinite values, and where ``predict`` returns NaN.

    Raises:
        ValueError: If the shapes do not match, there are more groups than pixels, or ``predict`` returns something
            other than N numbers.

    Example:
        >>> images = torch.rand(2, 3, 8, 8)
        >>> saco(images.mean(1), images, lambda pictures, owners: pictures.mean((1, 2, 3)), groups=8)
        tensor([1., 1.], dtype=torch.float64)
    """
    given = maps
    maps, finite = finite_maps(maps)
    if images.ndim != 4 or (len(images), *images.shape[2:]) != maps.shape:
        raise ValueError(
            f"images: (B, C, H, W) of the maps' size is needed; images are {tuple(images.shape)} and maps "
            f"{tuple(given.shape)}."
        )
    size, pixels = len(maps), maps[0].numel() if len(maps) else maps.shape[1] * maps.shape[2]
    if isinstance(groups, bool) or not isinstance(groups, int) or not 2 <= groups <= pixels:
        raise ValueError(f"groups: a number from 2 to the {pixels} pixels of a map is needed, not {groups!r}.")
    if size == 0:
        return maps.new_zeros(0)
    group = _groups(maps, groups)
    salience = (maps - maps.amin((1, 2), keepdim=True)).flatten(1)  # shifted: a constant map is exactly zero
    members = torch.zeros(size, groups, dtype=torch.float64, device=maps.device)
    summed = members.scatter_add(1, group, salience)
    # the mean, not the sum: the same up to a factor, and fair if group sizes differ by one
    means = summed / members.scatter_add(1, group, torch.ones_like(salience))
    probability = _asked(images, group.to(images.device).reshape(maps.shape), predict, groups).to(maps.device)
    return torch.where(finite, saco_score(means, -probability), torch.nan)


def saco_score(salience: torch.Tensor, drop: torch.Tensor) -> torch.Tensor:
    """SaCo from the groups' salience and the drop caused by hiding each (Algorithm 1).

    Over all pairs i < j the weight ``s_i - s_j`` is added if ``d_i >= d_j`` and subtracted otherwise; the sum is
    divided by the sum of the absolute weights.

    Args:
        salience: ``(B, K)``, of the groups by decreasing salience.
        drop: ``(B, K)``, the drop of the probability without each group; a constant offset does not matter.

    Returns:
        ``(B,)`` float64, from -1 to 1; NaN where all groups have the same salience or a value is NaN.

    Raises:
        ValueError: If the shapes differ or there are fewer than two groups.

    Example:
        >>> saco_score(torch.tensor([[3.0, 2.0, 0.0]]), torch.tensor([[0.5, 0.1, 0.2]]))
        tensor([0.3333], dtype=torch.float64)
    """
    if salience.ndim != 2 or salience.shape != drop.shape or salience.shape[1] < 2:
        raise ValueError(
            f"salience and drop: both (B, K) with K at least 2, not {tuple(salience.shape)} and {tuple(drop.shape)}."
        )
    i, j = torch.triu_indices(salience.shape[1], salience.shape[1], 1, device=salience.device)
    s, d = salience.double(), drop.double().to(salience.device)
    weight = s[:, i] - s[:, j]
    score = torch.where(d[:, i] >= d[:, j], weight, -weight).sum(1) / weight.abs().sum(1)
    return torch.where(d.isnan().any(1), torch.nan, score)


def _groups(maps: torch.Tensor, groups: int) -> torch.Tensor:
    """``(B, H * W)``: each pixel's group, 0 for the largest values."""
    order = maps.flatten(1).sort(dim=1, descending=True, stable=True).indices
    by_rank = torch.arange(order.shape[1], device=maps.device) * groups // order.shape[1]
    return torch.empty_like(order).scatter_(1, order, by_rank.expand_as(order))


def _asked(images: torch.Tensor, group: torch.Tensor, predict: Predict, groups: int) -> torch.Tensor:
    """``(B, groups)``: the probability without each group."""
    hidden = group[:, None] == torch.arange(groups, device=images.device)[:, None, None]
    colour = images.mean((2, 3), keepdim=True)
    pictures = torch.where(hidden[:, :, None], colour[:, None], images[:, None]).flatten(0, 1)
    owners = torch.arange(len(images), device=images.device).repeat_interleave(groups)
    probability = predict(pictures, owners)
    if probability.shape != owners.shape:
        raise ValueError(
            f"predict: one probability for each of {len(owners)} images is needed, not {tuple(probability.shape)}; "
            "choose the explained class of each by its owner."
        )
    return probability.reshape(len(images), groups)


register(
    Metric(
        "SaCo",
        lambda given: saco(given.maps, given.pixels, given.probability),
        needs=("classes", "pixels", "probability", "logits"),  # logits: of one class the score would be 1
        kind="saco",
        heading="Perturbation",
        chance=0.0,
        constant=torch.nan,
        predicted_only=True,
        meaning="Whether groups of pixels with higher values matter more to the model, from -1 to 1.",
    )
)
