"""Scores of a batch's controls: maps that owe nothing to astrocytes, and the human maps of other photographs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from captum_astro.evaluation.vita import blur, centre
from captum_astro.evaluation.vita.blur import blurred
from captum_astro.evaluation.vita.centre import centred
from captum_astro.evaluation.vita.results import PLAIN
from captum_astro.evaluation.vita.scoring import Seen, Where, scored

CENTRE, BLURRED, ANOTHER = "centre", "blurred", "another"


def control_scores(seen: Seen, others: Sequence[torch.Tensor | None], metrics: Sequence[str]) -> pd.DataFrame:
    """One row per sample, control, width and metric.

    A Gaussian at the centre (``centre``, the same for every method), the plain map blurred (``blurred``), and every map
    against the human map of another photograph (``another``).

    Args:
        seen: The maps of the plain model and of one or more settings.
        others: The human map of another photograph for each sample, ``(H, W)``; None where there is none.
        metrics: As in `captum_astro.evaluation.vita.scoring.score_table`.
    """
    human = list(seen.human.cpu())
    rows = [
        scored(seen, Where(PLAIN, "-", CENTRE, width), _same(centred(len(human[0]), width), len(human)), human, metrics)
        for width in centre.WIDTHS
    ]
    for method, found in seen.maps.items():
        parts = dict(zip(seen.settings, found.cpu().split(len(seen.batch)), strict=True))
        for width in blur.WIDTHS:
            soft = blurred(parts[PLAIN], width)
            rows.append(scored(seen, Where(PLAIN, method, BLURRED, width), soft, human, metrics))
        for setting, maps in parts.items():
            rows.append(scored(seen, Where(setting, method, ANOTHER), maps, others, metrics))
    return pd.concat(rows, ignore_index=True)


def _same(one: torch.Tensor, count: int) -> torch.Tensor:
    return one.expand(count, -1, -1)
