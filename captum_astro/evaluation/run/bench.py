"""A complete benchmark, on one process or many; it resumes if it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_astro.astro.vita import ViTA
from captum_astro.data.specs import samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.cases import Probe, numbers_of, probe
from captum_astro.evaluation.run.fitting import fitting, for_model, tell_astrocytes
from captum_astro.evaluation.run.rows import Row
from captum_astro.evaluation.run.scoring import Scorer
from captum_astro.evaluation.run.shards import Shard, wait
from captum_astro.evaluation.run.store import BenchStore
from captum_astro.evaluation.specification.config import BenchConfig, versions
from captum_astro.evaluation.specification.models import ModelChoice
from captum_astro.models.loading import load_model
from captum_astro.storage import weights_digest as digest

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """How a benchmark ended.

    Attributes:
        samples: The number of samples.
        computed: Chunks that this process computed.
        missing: Missing chunks; if there are none, all rows are merged.
    """

    samples: int
    computed: int
    missing: int


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
        ValueError: If the data or a model is missing, a metric is not available, or the folder holds another benchmark.
        OSError: If the folder cannot be written. Finished chunks are kept, and the same command resumes.
    """
    shard = shard or Shard()
    dataset = samples(config.data, config.limit)
    found = probe(dataset)
    config, roles = fitting(config, found, say, strict)
    tell_astrocytes(config, say)
    models = [_model(model, config, say) for model in config.models]
    store = BenchStore(folder)
    _begin(store, _described(config, found, models), shard)
    if store.results.exists():
        if shard.first:
            store.tidy()
        say("The benchmark is finished.")
        return Outcome(found.count, 0, 0)
    size = config.chunk_size
    per_model = -(-found.count // size)
    everything = list(product(range(len(models)), range(per_model)))
    mine = shard.mine(everything)
    todo = set(store.missing(mine))
    done = sum(len(numbers_of(chunk, size, found.count)) for model, chunk in mine if (model, chunk) not in todo)
    total = sum(len(numbers_of(chunk, size, found.count)) for _, chunk in mine)
    if done:
        say(f"{done} of {total} samples are already done.")
    progress(done, total)
    reported: set[str] = set()
    for number, label in enumerate(config.labels):
        own = sorted(chunk for model, chunk in todo if model == number)
        if own:
            model = _placed(models[number], shard.device(config.device))
            scorer = Scorer(label, model, for_model(config, number), roles)
        for chunk in own:
            numbers = numbers_of(chunk, size, found.count)
            scored = scorer.score(dataset, numbers)
            store.add((number, chunk), scored.rows, scored.maps)
            _report(scored.rows, reported, say)
            done += len(numbers)
            progress(done, total)
        models[number] = nn.Identity()  # free its memory for the next model
    return Outcome(found.count, len(todo), _merged(store, config, everything, shard, say))


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


def _placed(model: nn.Module, device: str) -> nn.Module:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"The model cannot be put on {device!r}: {str(error).splitlines()[0]}") from error


def _described(config: BenchConfig, found: Probe, models: list[nn.Module]) -> dict[str, Any]:
    weights: dict[str, Any] = {}
    for label, model in zip(config.labels, models, strict=True):
        weights[label] = {"weights": digest(model), "input": ModelTransform(model, config.geometry).described}
        if isinstance(model, ViTA):
            weights[label]["vita"] = {"layer": model.layer, "token": model.token, **asdict(model.modulation)}
    return {
        "configuration": config.described(),
        "versions": versions(),
        "models": weights,
        "samples": {"count": found.count, "digest": found.digest},
    }


def _report(rows: list[Row], reported: set[str], say: Callable[[str], None]) -> None:
    """Report the first failure of each method, and each sample's own once, so that mistyped options are noticed."""
    for row in rows:
        method = f"{row.model}, {row.method}"
        failure = row.failure
        if failure is None or failure.where == "data" or str(failure) in reported or method in reported:
            continue
        reported |= {str(failure), method}
        say(f"Failed: {method}, {row.name}: {failure}. Further failures are only counted, in the report.")


def _begin(store: BenchStore, described: dict[str, Any], shard: Shard) -> None:
    """The first process writes the record, the others wait for it; all check it."""
    if not shard.first and wait(lambda: int(not store.record.exists()), shard.patience):
        raise ValueError(f"{store.record} did not appear: the first process has not begun.")
    store.begin(described)


def _merged(
    store: BenchStore, config: BenchConfig, chunks: list[tuple[int, int]], shard: Shard, say: Callable[[str], None],
) -> int:  # fmt: skip
    """Merge the rows when all are there; the first process waits for the others. Returns the number missing."""
    missing = store.missing(chunks)
    left = len(missing)
    if not shard.first:
        return left
    if left:
        say(f"Waiting for {left} chunks of the other processes.")

        def looked() -> int:
            missing[:] = store.missing(missing)  # only check the remaining chunks: there may be thousands
            return len(missing)

        left = wait(looked, shard.patience, pause=2.0)
    if left:
        say(f"{left} chunks are missing: their processes are gone. Run the same command again to resume.")
    else:
        store.merge(config.labels, len(chunks) // len(config.models))
        store.tidy()
    return left
