"""A contrastive target: what speaks for one class and against others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from captum_astro.kinds import number


class ContrastTarget(nn.Module):
    """The difference of each class's logit and that of others, one output for each class. Made by `contrast_target`.

    Args:
        model: Returns logits ``(B, classes)``.
        against: The classes to compare with; empty for all others.
        weight: Of their mean.
        probabilities: Whether the outputs end in a sigmoid.
    """

    def __init__(self, model: nn.Module, against: tuple[int, ...], weight: float, probabilities: bool) -> None:
        super().__init__()
        self.model = model
        self.against, self.weight, self.probabilities = against, weight, probabilities
        self.training = model.training  # not train(), which would change the model's parts

    @property
    def returns_log_odds(self) -> bool:
        """Whether a softmax of the outputs would mean nothing."""
        return not self.probabilities

    def forward(self, *inputs: Any, **arguments: Any) -> torch.Tensor:
        """The differences ``(B, classes)``; all arguments are those of the model."""
        logits = self.model(*inputs, **arguments)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ValueError(f"The model returns {found}; logits (B, classes) of two classes at least are compared.")
        differences = self._against_all(logits) if not self.against else self._against_some(logits)
        return differences.sigmoid() if self.probabilities else differences

    def _against_all(self, logits: torch.Tensor) -> torch.Tensor:
        """The log-odds of each class: its logit minus the logarithm of the sum of the other exponentials."""
        top = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, keepdim=True), True)
        behind = logits.masked_fill(top, -torch.inf).logsumexp(1, keepdim=True)  # a difference of sums would cancel
        ahead = logits.logsumexp(1, keepdim=True) + torch.log1p(-logits.softmax(1).masked_fill(top, 0))
        return logits - self.weight * torch.where(top, behind, ahead)

    def _against_some(self, logits: torch.Tensor) -> torch.Tensor:
        """Each class's logit minus the mean of the chosen ones, without the class itself."""
        wrong = next((each for each in self.against if not 0 <= each < logits.shape[1]), None)
        if wrong is not None:
            raise IndexError(f"against {wrong} is out of range: classes run from 0 to {logits.shape[1] - 1}.")
        chosen = torch.zeros(logits.shape[1], device=logits.device, dtype=logits.dtype)
        chosen[list(self.against)] = 1
        own = torch.diag(chosen)
        weights = chosen - own
        return logits - self.weight * (logits @ (weights / weights.sum(1, keepdim=True).clamp(min=1)).T)


def contrast_target(
    model: nn.Module,
    against: int | Sequence[int] | Literal["others"] = "others",
    *,
    weight: float = 1.0,
    probabilities: bool = False,
) -> ContrastTarget:
    """A module that compares classes, so that methods explain why an image is of one class and not of another.

    Its outputs are, for each class c, ``z_c - weight mean(z_d)`` over the classes d of ``against``; against all others
    they are the log-odds ``z_c - weight log(sum(exp(z_d)))``. Pass c as the target, in any of Captum's forms. The
    module shares the model's weights.

    Source: Prabhushankar et al., "Contrastive explanations in neural networks", ICIP 2020; Zhang et al., "Finer-CAM",
    CVPR 2025, for the mean over similar classes and its weight.

    Args:
        model: A model that returns logits ``(B, classes)``.
        against: The class, or the classes, to compare with; or all others, through whose logarithm AttnLRP, LRP,
            ConservativeLRP, TransformerAttribution and ProjectedFlow have no rule: name classes for these.
        weight: Of the others; 0 is the plain logit.
        probabilities: End in a sigmoid: the outputs are the probabilities of c where only c and the others are
            possible. VTranM explains these by default; without, it needs ``output="logit"``.

    Returns:
        A module from the model's inputs to ``(B, classes)``.

    Raises:
        TypeError: If the model is none, or ``against`` is neither a class nor classes.
        ValueError: If there is no class to compare with, or the weight is no finite number.

    Example:
        >>> import timm
        >>> from captum_astro import AttnLRP
        >>> model = timm.create_model("test_vit").eval()
        >>> why_not_b = contrast_target(model, against=282)
        >>> AttnLRP(why_not_b).attribute(torch.rand(1, 3, 160, 160), target=281).shape
        torch.Size([1, 3, 160, 160])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    given: tuple[Any, ...] = tuple(against) if isinstance(against, Sequence) else (against,)
    given = () if against == "others" else given
    if any(isinstance(each, bool) or not isinstance(each, int) for each in given):
        raise TypeError(f"against must be a class as an int, several of them, or 'others', not {against!r}.")
    if against != "others" and not given:
        raise ValueError("against is empty: pass a class, or 'others'.")
    number().check("weight", weight)
    return ContrastTarget(model, given, float(weight), probabilities)
