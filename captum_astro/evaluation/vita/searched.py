"""The controls of a search: each selected setting evaluated again, with what else could explain its gain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
from torch import nn

from captum_astro.data.human import HumanSample
from captum_astro.evaluation.vita.config import EvaluationConfig, SearchConfig
from captum_astro.evaluation.vita.controls import control_table
from captum_astro.evaluation.vita.evaluate import evaluate
from captum_astro.evaluation.vita.results import Results
from captum_astro.evaluation.vita.settings import Setting


def selected_controls(
    model: nn.Module,
    samples: Callable[[], Iterable[HumanSample]],
    best: pd.DataFrame,
    settings: Sequence[Setting],
    config: SearchConfig,
    *,
    out: Path | None = None,
) -> pd.DataFrame:
    """The controls of the settings that a search selected, on its odd samples.

    Args:
        model: The model of the search.
        samples: Returns the samples of the search, from the first.
        best: What the search selected, as `Results.best` returns it.
        settings: The settings of the search.
        config: Of the search.
        out: A folder for the evaluations, one for each setting; what is found there is resumed.

    Returns:
        As `captum_astro.evaluation.vita.controls.control_table`.

    Raises:
        ValueError: If the search was of a ``cam_layer``, which an evaluation does not have; and as `evaluate`.
    """
    if config.cam_layer is not None:
        raise ValueError("The controls are computed at Grad-CAM's usual layer: search without cam_layer.")
    own = EvaluationConfig(config.methods, config.metrics, size=config.size, batch_size=config.batch_size)
    found: dict[tuple[str, str], Results] = {}
    for number, rows in best.groupby("setting"):
        folder = None if out is None else out / f"setting-{number}"
        results = evaluate(model, samples(), settings[int(str(number))], own, out=folder)
        found |= {(str(row.method), str(row.metric)): results for row in rows.itertuples()}
    order = zip(best["method"], best["metric"], strict=True)
    return control_table({pair: found[pair] for pair in order})
