"""All metrics of the benchmark, each declared with `register` in the file of its function."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path

import torch

from captum_astro.metrics.declaration import Given, Metric

_KINDS = ("model", "perturbation", "segmentation", "localisation", "saco", "human")  # in this order, then others
_REGISTERED: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Register a metric for the benchmark, its tables and its report.

    Files in ``captum_astro/metrics/`` are discovered automatically; your own metric is available once its module is
    imported.

    Args:
        metric: The metric.

    Raises:
        ValueError: If another metric has the same name.
    """
    other = _REGISTERED.get(metric.name)
    if other is not None and other.compute.__module__ != metric.compute.__module__:
        raise ValueError(
            f"There is a metric {metric.name!r} already, in {other.compute.__module__}: give another name."
        )
    _REGISTERED[metric.name] = metric
    return metric


def all_metrics() -> dict[str, Metric]:
    """The metrics of maps by name, grouped by kind, then by the name of their module, in whichever order imported.

    Those of texts are `text_metrics`.

    Example:
        >>> list(all_metrics())[:3]
        ['accuracy', 'ADCC', 'average drop']
    """
    _discover()
    places = {kind: place for place, kind in enumerate(_KINDS)}

    def place(metric: Metric) -> tuple[int, bool, str]:
        return places.get(metric.kind, len(places)), metric.of_model, metric.compute.__module__

    return {metric.name: metric for metric in sorted(_REGISTERED.values(), key=place) if not metric.of_text}


def text_metrics() -> dict[str, Metric]:
    """The metrics of texts by name, in the order in which they are declared.

    Example:
        >>> list(text_metrics())
        ['comprehensiveness', 'sufficiency', 'most first', 'least first']
    """
    _discover()
    return {name: metric for name, metric in _REGISTERED.items() if metric.of_text}


def metric_named(name: str) -> Metric:
    """The metric of this name; for an unknown name, a placeholder where higher is better, for rows from elsewhere.

    Example:
        >>> metric_named("mIoU").percent, metric_named("mine").title
        (True, 'Other metrics')
    """
    _discover()
    return _REGISTERED.get(name) or Metric(name, _not_known, kind="other", heading="Other metrics")


@cache
def _discover() -> None:
    """Import the other files in this folder, which register their metrics."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.ispkg and not module.name.startswith("_"):
            import_module(f"captum_astro.metrics.{module.name}")


def _not_known(given: Given) -> torch.Tensor:
    raise NotImplementedError("This metric is not registered: it can be read from rows, not computed.")
