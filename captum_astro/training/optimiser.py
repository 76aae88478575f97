"""AdamW with weight decay on the appropriate parameters, and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def adamw(model: nn.Module, lr: float, weight_decay: float) -> AdamW:
    """AdamW; biases, norms, embeddings and parameters named in ``no_weight_decay()`` are not decayed.

    Args:
        model: Its trainable parameters are optimised.
        lr: The learning rate.
        weight_decay: Weight decay of the other parameters.

    Example:
        >>> groups = adamw(nn.Linear(3, 2), lr=1e-3, weight_decay=0.05).param_groups
        >>> [(group["weight_decay"], len(group["params"])) for group in groups]
        [(0.0, 1), (0.05, 1)]
    """
    return AdamW(param_groups_weight_decay(model, weight_decay, no_weight_decay_list=sorted(undecayed(model))), lr=lr)


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters with two dimensions or more that are positions or look-ups, not linear maps."""
    own: Callable[[], set[str]] | None = getattr(model, "no_weight_decay", None)
    named = set() if own is None else set(own())
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            named.add(f"{path}.weight")
    return named


def warm_up_cosine(optimiser: Optimizer, steps: int, warm_up: float = 0.05) -> LambdaLR:
    """Linear warm-up of the learning rate over the first fraction of the steps, then half a cosine down to 0.

    Args:
        optimiser: Its current learning rate is the peak.
        steps: Steps of the whole run.
        warm_up: The fraction of the steps used for warm-up, from 0 to 1.

    Example:
        >>> optimiser = adamw(nn.Linear(3, 2), lr=1.0, weight_decay=0.0)
        >>> schedule = warm_up_cosine(optimiser, steps=4, warm_up=0.5)
        >>> rates = []
        >>> for _ in range(4):
        ...     rates.append(round(schedule.get_last_lr()[0], 3))
        ...     optimiser.step()
        ...     schedule.step()
        >>> rates
        [0.5, 1.0, 1.0, 0.5]
    """
    rise = round(steps * warm_up)

    def rate(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))

    return LambdaLR(optimiser, rate)
