"""A complete benchmark, on one process or many; it resumes if it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_astro.astro.vita import ViTA
from captum_astro.data.specs import samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.cases import Probe, probe
from captum_astro.evaluation.run.circumstances import circumstances
from captum_astro.evaluation.run.fitting import fitting, tell_astrocytes
from captum_astro.evaluation.run.leftovers import Use
from captum_astro.evaluation.run.notices import Notices
from captum_astro.evaluation.run.shards import Shard
from captum_astro.evaluation.run.steps import Outcome, Progress, Run
from captum_astro.evaluation.run.store import FORMAT, MADE, BenchStore
from captum_astro.evaluation.specification.config import BenchConfig
from captum_astro.evaluation.specification.models import ModelChoice
from captum_astro.models.loading import load_model
from captum_astro.storage import weights_digest as digest
from captum_astro.versions import versions


def run_bench(
    config: BenchConfig,
    folder: Path,
    *,
    shard: Shard | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda done, total: None,
    strict: bool = False,
) -> Outcome:
    """Run a benchmark, or resume one.

    Args:
        config: The benchmark.
        folder: Folder for its results.
        shard: The rank of this process among those that run the same benchmark; by default it is the only one.
        say: Callback that receives messages about checkpoints, skipped metrics and progress, one line each.
        progress: Callback that receives the number of finished samples and of all samples of this process, over all
            models.
        strict: Raise an error for metrics that the data cannot support, instead of skipping them.

    Returns:
        How it ended.

    Raises:
        ValueError: If the data or a model is missing, a metric is not available, the folder holds another benchmark, or
            another process has stopped.
        OSError: If the folder cannot be written. Finished chunks are kept, and the same command resumes.
    """
    shard = shard or Shard()
    with Notices(folder, shard) as notices:
        dataset = samples(config.data, config.limit)
        found = probe(dataset)
        config, roles = fitting(config, found, say, strict)
        tell_astrocytes(config, say)
        models = [_model(model, config, say) for model in config.models]
        run = Run(config, BenchStore(folder), _described(config, found, models), shard, notices, say)
        run.begin()
        with Use(folder) as use:
            outcome = run.complete(dataset, models, roles, progress)
            if shard.first and not outcome.missing:
                notices.clear()
                use.tidy()
        return outcome


def _model(choice: ModelChoice, config: BenchConfig, say: Callable[[str], None]) -> nn.Module:
    torch.manual_seed(config.seed)  # makes random weights reproducible
    model = load_model(
        choice.name,
        pretrained=config.pretrained,
        checkpoint=choice.checkpoint,
        num_classes=choice.classes,
        use_ema=config.use_ema,
        say=say,
    )
    return model if choice.vita is None else ViTA(model, **choice.vita)


def _described(config: BenchConfig, found: Probe, models: list[nn.Module]) -> dict[str, Any]:
    weights: dict[str, Any] = {}
    for label, model in zip(config.labels, models, strict=True):
        weights[label] = {"weights": digest(model), "input": ModelTransform(model, config.geometry).described}
        if isinstance(model, ViTA):
            weights[label]["vita"] = {"layer": model.layer, "token": model.token, **asdict(model.modulation)}
    return {
        "format": FORMAT,
        "configuration": config.described(),
        "versions": versions(),
        "models": weights,
        "samples": {"count": found.count, "has": sorted(found.has)},
        MADE: circumstances(config),
    }
