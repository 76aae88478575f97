"""ViT-CX: channels of the tokens as masks, similar ones merged, and the causal impact of each.

Source: Xie et al., "ViT-CX: Causal Explanation of Vision Transformers", IJCAI 2023 (arXiv 2211.03064).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def as_masks(maps: torch.Tensor) -> torch.Tensor:
    """Each map from 0, its least value, to 1, its largest; a map that is the same everywhere becomes 0.

    Args:
        maps: ``(K, P)``.

    Returns:
        ``(K, P)``.

    Example:
        >>> as_masks(torch.tensor([[1.0, 3.0, 2.0], [4.0, 4.0, 4.0]])).tolist()
        [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]
    """
    least = maps.amin(1, keepdim=True)
    span = maps.amax(1, keepdim=True) - least
    return torch.where(span > 0, (maps - least) / span, torch.zeros_like(maps))


def clusters(masks: torch.Tensor, distance: float) -> torch.Tensor:
    """Clusters of masks by complete linkage: any two of a cluster are closer than ``distance``.

    Args:
        masks: ``(K, P)``, not negative.
        distance: One minus the cosine of two masks; 1 if one of them is 0.

    Returns:
        The number of each mask's cluster, ``(K,)``, in the order of their first masks.

    Example:
        >>> clusters(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]), 0.1).tolist()
        [0, 1, 0]
    """
    from sklearn.cluster import AgglomerativeClustering

    if len(masks) < 2:
        return torch.zeros(len(masks), dtype=torch.long, device=masks.device)
    unit = F.normalize(masks, dim=1, eps=torch.finfo(masks.dtype).tiny)
    apart = (1 - unit @ unit.T).clamp(min=0)
    joining = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=distance
    )
    found = joining.fit_predict(apart.double().cpu().numpy()).tolist()
    order = {label: number for number, label in enumerate(dict.fromkeys(found))}
    return torch.tensor([order[label] for label in found], device=masks.device)


def merged(masks: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum of the masks of each cluster, again from 0 to 1.

    Args:
        masks: ``(K, P)``.
        labels: The number of each mask's cluster, ``(K,)``, from 0 to N - 1.

    Returns:
        ``(N, P)``.
    """
    sums = masks.new_zeros(int(labels.max()) + 1, masks.shape[1])
    return as_masks(sums.index_add_(0, labels, masks))


def masked(image: torch.Tensor, masks: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The image through each mask, and the whole image, both with noise where the mask is low.

    Args:
        image: ``x``, ``(C, H, W)``.
        masks: ``M``, ``(N, 1, H, W)``.
        noise: ``Z``, ``(N, C, H, W)``.

    Returns:
        ``x M + Z (1 - M)`` and ``x + Z (1 - M)``, each ``(N, C, H, W)``.
    """
    added = noise * (1 - masks)
    return image * masks + added, image + added


def impact_map(masks: torch.Tensor, impacts: torch.Tensor) -> torch.Tensor:
    """``1/N sum_i s_i M_i / sum_j M_j``: each position's impact, whatever the number of masks that cover it.

    Args:
        masks: ``M``, ``(N, P)``.
        impacts: ``s``, ``(N,)``.

    Returns:
        ``(P,)``; 0 where no mask covers a position.
    """
    cover = masks.sum(0)
    summed = impacts @ masks / len(masks)
    return torch.where(cover > 0, summed / cover, torch.zeros_like(summed))
