"""The part of a page about one model in one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from captum_astro.command_lines import portable
from captum_astro.evaluation import analysis
from captum_astro.evaluation.evidence.scores import Found, Score, scores
from captum_astro.evaluation.evidence.text import code
from captum_astro.evaluation.report.verdict import Verdict, verdict
from captum_astro.evaluation.run.results import BenchResults
from captum_astro.evaluation.specification.command import command
from captum_astro.evaluation.specification.presets import PRESETS
from captum_astro.evaluation.specification.published import published
from captum_astro.metrics.registry import metric_named
from captum_astro.wording import counted

_STEPPED = ("positive_logits", "negative_logits", "blurred_positive_logits", "blurred_negative_logits")

_CROPS = {"none": "whole images, resized to the model's square", "timm": "images cropped as timm evaluates the model"}


@dataclass(frozen=True)
class Section:
    """One model in one run.

    Attributes:
        run: The name of the run's folder.
        model: The model.
        samples: How many images it was run on.
        facts: What was run, one item each, in Markdown.
        verdict: Who wins; None if nothing ranks the methods.
        ranks: As `captum_astro.evaluation.analysis.mean_ranks`.
        scores: A table for each score.
        preset: The preset that is repeated, and its part; None if there is none.
        failures: As `captum_astro.evaluation.analysis.failures`, of the errors only their types.
    """

    run: str
    model: str
    samples: int
    facts: list[str]
    verdict: Verdict | None
    ranks: pd.DataFrame
    scores: list[Score]
    preset: tuple[str, str] | None
    failures: list[dict[str, Any]]


@dataclass(frozen=True)
class Made:
    """How a run was made: its command, and what else its results depend on."""

    run: str
    command: str
    facts: list[str]


def sections(folder: Path, run: BenchResults, bootstrap: int) -> list[Section]:
    """The sections of a run, in the order of its models."""
    return [
        _section(folder.name, str(model), own, run.config, bootstrap)
        for model, own in run.rows.groupby("model", sort=False)
    ]


def made(folder: Path, run: BenchResults) -> Made:
    """How a run was made."""
    record = run.config
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    how = record.get("made", {})
    facts = [f"Begun on {how['date']} (UTC)" if how.get("date") else "", how.get("machine", ""), versions]
    weights = [f"{name}: {one.get('weights', '')}" for name, one in record.get("models", {}).items()]
    facts.append(f"Digests of the weights: {', '.join(weights)}" if weights else "")
    facts.append("" if run.finished else "The run is not finished: its figures will change.")
    # what is wrong with them is in the report: it names paths of the machine
    facts.append(f"Damaged, and left out: {counted(len(run.left_out), 'file')}." if run.left_out else "")
    return Made(folder.name, command(record, f"$RUNS/{folder.name}"), [fact for fact in facts if fact])


def _section(run: str, model: str, rows: pd.DataFrame, record: Mapping[str, Any], bootstrap: int) -> Section:
    found = Found(
        analysis.summary(rows, bootstrap),
        analysis.comparisons(rows, None, bootstrap),
        analysis.ranking(rows, bootstrap),
    )
    recorded = record.get("made", {}).get("preset")
    preset = (str(recorded[0]), str(recorded[1])) if recorded else None
    paper = published(preset, model) if preset else {}
    samples = int(rows["sample"].nunique())
    facts = _facts(samples, found.summary, record.get("configuration", {}), set(rows["metric"]))
    facts += [f"*paper* is {PRESETS[preset[0]].source}"] if preset and paper else []
    return Section(
        run=run,
        model=model,
        samples=samples,
        facts=facts,
        verdict=verdict(found.ranking, found.against_best),
        ranks=analysis.mean_ranks(rows, bootstrap),
        scores=list(scores(found, paper)),
        preset=preset,
        failures=_failures(rows),
    )


def _failures(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Their types only: messages name paths of the machine."""
    found = analysis.failures(rows)
    kinds = found.assign(error=found["error"].str.partition(":")[0] if len(found) else found["error"])
    counts = kinds.groupby(["method", "error"], sort=False, as_index=False)["samples"].sum()
    return [dict(row) for row in counts.to_dict("records")]


def _facts(samples: int, summary: pd.DataFrame, config: Mapping[str, Any], metrics: set[str]) -> list[str]:
    """What was run, in a few words each."""
    accuracy = summary[summary["metric"] == "accuracy"]
    found = [f"{counted(samples, 'image')} of {code(portable(str(config.get('data', ''))))}"]
    if len(accuracy) and accuracy["mean"].notna().all():
        value, low, high = (100 * float(accuracy[name].iloc[0]) for name in ("mean", "low", "high"))
        found.append(f"the model's accuracy on them is {value:.1f} % [{low:.1f}, {high:.1f}]")
    kind = {"both": "the predicted and the true class are explained"}
    explained = str(config.get("explained", ""))
    found.append(kind.get(explained, f"the {explained} class is explained"))
    crops = {
        "none": "whole images, resized to the model's square",
        "timm": "images cropped as timm evaluates the model",
    }
    found.append(crops.get(str(config.get("crop")), ""))
    if any(need in _STEPPED for name in metrics for need in metric_named(name).needs):
        found.append(f"pixels removed in {config.get('steps')} steps")
    return [fact for fact in found if fact]
