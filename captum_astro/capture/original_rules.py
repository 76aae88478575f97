"""LRP by the first rules for Vision Transformers, in the backward pass."""

from __future__ import annotations

from typing import Any

import torch

from captum_astro.capture.relevance_rules import Relevance
from captum_astro.functional import original_rules


class OriginalRelevance(Relevance):
    """Linear layers divide by the sum of each sign alone, and residual adds are not normalised."""

    linear = original_rules.LinearBySign

    def added(self, a: torch.Tensor, b: torch.Tensor) -> Any:
        """``a + b``, shared in proportion."""
        return original_rules.ProportionalAdd.apply(a, b)
