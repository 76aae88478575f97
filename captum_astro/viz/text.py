"""Words coloured by their attribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def text_record(
    words: Sequence[str],
    attributions: torch.Tensor,
    *,
    predicted: str,
    probability: float,
    explained: str,
    label: str = "",
) -> Any:
    """A text record for Captum's ``visualize_text``: words coloured by their attribution.

    Args:
        words: The tokens, as readable text.
        attributions: One value per token, ``(n,)``; padding after the last word is left out. They are scaled so that
            the largest absolute value is 1.
        predicted: The predicted class.
        probability: Its probability.
        explained: The class that the attributions explain.
        label: The true class, if known.

    Returns:
        A ``captum.attr.visualization.VisualizationDataRecord``.

    Raises:
        ValueError: If there are more words than values.

    Example:
        >>> record = text_record(["a", "fine", "film"], torch.tensor([0.1, 2.0, 0.5]), predicted="positive",
        ...                      probability=0.9, explained="positive")
        >>> record.word_attributions.tolist()
        [0.05000000074505806, 1.0, 0.25]
    """
    from captum.attr import visualization

    if len(words) > len(attributions):
        raise ValueError(f"There are {len(words)} words and {len(attributions)} attributions.")
    values = attributions[: len(words)].detach().float().cpu()
    largest = values.abs().max() if len(values) else values.new_zeros(())
    return visualization.VisualizationDataRecord(
        word_attributions=values / largest if largest > 0 else values,
        pred_prob=probability,
        pred_class=predicted,
        true_class=label,
        attr_class=explained,
        attr_score=float(attributions.detach().float().sum()),
        raw_input_ids=list(words),
        convergence_score=0.0,
    )
