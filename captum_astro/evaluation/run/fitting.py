"""Restricting a benchmark to what its data and its models support."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from captum_astro.evaluation.run.cases import Probe
from captum_astro.evaluation.specification.config import BenchConfig
from captum_astro.evaluation.specification.metrics import lacking
from captum_astro.metrics.declaration import OF_THE_DATA
from captum_astro.metrics.registry import all_metrics


def fitting(
    config: BenchConfig, found: Probe, say: Callable[[str], None], strict: bool
) -> tuple[BenchConfig, tuple[str, ...]]:
    """The benchmark restricted to what the data supports, and the classes to explain.

    Args:
        config: The requested benchmark.
        found: The properties of the data.
        say: Callback that receives messages about skipped metrics.
        strict: Raise an error for metrics that are not available, instead of skipping them.

    Raises:
        ValueError: If a metric is not available and ``strict`` is set, or there are no labels for the true class.
    """
    known = all_metrics()
    why = {name: f"the data has no {OF_THE_DATA[need]}" for name, need in lacking(config.metrics, found.has).items()}
    of_people = [name for name in config.metrics if "human_maps" in known[name].needs and name not in why]
    crop = config.crop
    if crop == "auto":
        crop = "none" if of_people else "timm"
    elif crop == "timm":
        why |= dict.fromkeys(of_people, "human maps are of the whole image (--crop none)")
    roles: tuple[str, ...] = ("predicted", "true") if config.explained == "both" else (config.explained,)
    if "labels" not in found.has:
        if config.explained == "true":
            raise ValueError(f"--explained true: {config.data} has no labels.")
        roles = ("predicted",)
    if "predicted" not in roles:
        of_predicted = [name for name in config.metrics if known[name].predicted_only and name not in why]
        why |= dict.fromkeys(of_predicted, "it is of the predicted class")
    if why and strict:
        raise ValueError(f"{', '.join(why)}: {next(iter(why.values()))}. Leave the metric out, or give other data.")
    for reason in dict.fromkeys(why.values()):
        say(f"Left out, as {reason}: {', '.join(name for name in why if why[name] == reason)}.")
    return replace(config, crop=crop, metrics=tuple(name for name in config.metrics if name not in why)), roles


def for_model(config: BenchConfig, number: int) -> BenchConfig:
    """The benchmark with the methods for one model, by index: a model under astrocytes gets no second astrocytes."""
    if config.models[number].vita is None:
        return config
    return replace(config, methods=tuple(method for method in config.methods if not method.has_astrocytes))


def tell_astrocytes(config: BenchConfig, say: Callable[[str], None]) -> None:
    """The methods that are skipped for models under astrocytes.

    Raises:
        ValueError: If every method would be skipped.
    """
    names = [method.name for method in config.methods if method.has_astrocytes]
    labels = [label for label, model in zip(config.labels, config.models, strict=True) if model.vita is not None]
    if names and labels:
        if len(names) == len(config.methods):
            raise ValueError(f"{', '.join(names)}: no method is left for {labels[0]}, which has astrocytes already.")
        say(f"Left out for {', '.join(labels)}, which has astrocytes already: {', '.join(names)}.")
