"""The report of a benchmark: one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from captum_astro.evaluation import analysis
from captum_astro.evaluation.report import curves, grid, pictures
from captum_astro.evaluation.report.choice import reference
from captum_astro.evaluation.report.order import by_rank
from captum_astro.evaluation.report.styles import styles
from captum_astro.evaluation.report.verdict import Verdict, verdict
from captum_astro.evaluation.report.visible import visible
from captum_astro.metrics.registry import all_metrics
from captum_astro.storage import write_whole

PICTURES = 500  # besides the best and worst cases, over all models: about 2.5 MB


@dataclass(frozen=True)
class ModelSection:
    """The part of the page for one model; ``methods``: the best first."""

    name: str
    verdict: Verdict | None
    methods: list[str]
    accuracy: str
    samples: int
    reference: str
    scores: list[grid.Grid]
    charts: list[curves.Chart]
    compared: list[grid.Grid]
    places: list[grid.Grid]
    examples: pictures.Examples | None
    failures: list[dict[str, Any]]


def write_report(folder: str | Path, out: str | Path, against: str | None = None) -> Path:
    """Write the report of a finished or unfinished run.

    Args:
        folder: Folder of the run.
        out: The HTML file.
        against: The reference method of the comparisons; by default VTranM, or the first one if it was not run.

    Returns:
        The file.

    Raises:
        ValueError: If there are no results in the folder, or a model was run without the method.
        OSError: If a file cannot be read or written.
    """
    from captum_astro.evaluation.run.results import read_run

    run = read_run(Path(folder))
    page = render(run.rows, run.maps, run.config, finished=run.finished, against=against, left_out=run.left_out)
    out = Path(out)
    write_whole(out, lambda part: part.write_text(page, encoding="utf-8"))
    return out


def render(
    rows: pd.DataFrame,
    maps: pd.DataFrame,
    config: Mapping[str, Any],
    *,
    finished: bool = True,
    against: str | None = None,
    bootstrap: int = 2000,
    left_out: Sequence[str] = (),
) -> str:
    """The page.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`.
        maps: As `captum_astro.evaluation.run.rows.MapRow`; may be empty.
        config: The configuration, as in `captum_astro.evaluation.run.results.BenchResults`; all of it is on the page.
        finished: Whether the run has ended.
        against: As in `write_report`.
        bootstrap: The number of bootstrap samples.
        left_out: Sentences about damaged files.

    Raises:
        ValueError: If there are no rows, or a model was run without the method.
    """
    if rows.empty:
        raise ValueError("There are no results yet; run the benchmark until the first chunk is written.")
    environment = Environment(
        loader=PackageLoader("captum_astro.evaluation.report", ""),
        autoescape=True,  # names of files, models and errors are untrusted text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    models = list(pd.unique(rows["model"]))
    methods = [str(name) for name in pd.unique(rows["method"]) if name != "-"]
    script, style = (_source(environment, name) for name in ("report.js", "report.css"))
    page = environment.get_template("template.html.jinja").render(
        title="Explanations compared",
        models=models,
        data=str(config.get("configuration", {}).get("data", "")),
        samples=rows["sample"].nunique(),
        planned=config.get("samples", {}).get("count"),
        methods=len(methods),
        styles=styles(methods),
        numbers={name: number for number, name in enumerate(methods)},
        glossary=[info for name, info in all_metrics().items() if name in set(rows["metric"])],
        finished=finished,
        left_out=left_out,
        bootstrap=bootstrap,
        versions=config.get("versions", {}),
        config=json.dumps(config, indent=2, ensure_ascii=False, default=str),
        parts=[
            _part(
                rows[rows["model"] == model],
                methods,
                maps[maps["model"] == model] if len(maps) else maps,
                against,
                bootstrap,
                PICTURES // len(models),
            )
            for model in models
        ],
        drawing=curves,
        level=grid.LEVEL,
        script=script,
        style=style,
        # only this script may run, and nothing is fetched, even if a name were not escaped
        digest="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return visible(page)


def breakable(name: str) -> Markup:
    """A name with line-break opportunities before a capital that begins a word, and after separators.

    Example:
        >>> breakable("TokenGradCAM<1>")
        Markup('Token<wbr>Grad<wbr>CAM&lt;<wbr>1&gt;')
    """
    parts = re.findall(r".+?(?:(?<=[a-z0-9])(?=[A-Z])|(?<=[^A-Za-z0-9])(?=[A-Za-z0-9])|$)", name, re.DOTALL)
    return Markup("<wbr>").join(parts)


def _part(
    rows: pd.DataFrame, styled: Sequence[str], maps: pd.DataFrame, against: str | None, bootstrap: int, drawn: int
) -> ModelSection:
    summary = analysis.summary(rows, bootstrap)
    methods = by_rank(summary[summary["method"] != "-"], "mean")
    chosen, several = reference(rows, against), len(methods) > 1
    top = analysis.comparisons(rows, None, bootstrap)
    ranking = analysis.ranking(rows, bootstrap)
    return ModelSection(
        name=str(rows["model"].iloc[0]),
        verdict=verdict(ranking, top) if several else None,
        methods=methods,
        accuracy=_accuracy(summary),
        samples=rows["sample"].nunique(),
        reference=chosen,
        scores=grid.scores(summary, top),
        charts=curves.charts(rows, styled, bootstrap) if "curve" in rows else [],
        compared=grid.compared(analysis.comparisons(rows, chosen, bootstrap)) if several else [],
        places=grid.places(ranking) if several else [],
        examples=pictures.examples(maps, rows, chosen, drawn, methods) if len(maps) else None,
        failures=analysis.failures(rows).to_dict("records"),
    )


def _accuracy(summary: pd.DataFrame) -> str:
    own = summary[(summary["metric"] == "accuracy") & summary["mean"].notna()]
    if own.empty:
        return ""
    value, low, high = (f"{100 * float(own[name].iloc[0]):.1f}" for name in ("mean", "low", "high"))
    return f"{value} % [{low}, {high}]"


def _source(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])  # part of the package, not of the run
