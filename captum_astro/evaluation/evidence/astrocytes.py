"""A page on what astrocytes change: Markdown from the folders of ``captum-astro vita search`` and ``evaluate``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from captum_astro.command_lines import quoted, wrapped
from captum_astro.evaluation.evidence.page import environment
from captum_astro.evaluation.evidence.text import headings
from captum_astro.evaluation.report.grid import LEVEL, MINUS, MISSING, p_value
from captum_astro.evaluation.report.visible import visible
from captum_astro.storage import read_json, write_whole
from captum_astro.wording import counted

_CONTROLS = 5  # the gain itself on the odd images among them
_MADE = "captum-astro vita search or vita evaluate, run again, makes them."


@dataclass(frozen=True)
class _Run:
    """What is read of a run.

    Attributes:
        name: The name of its folder.
        record: What identifies it: its settings, methods and metrics.
        made: How it was made.
        gains: A row for each method and metric, as `captum_astro.evaluation.vita.results.Results.best` returns them.
        controls: As `captum_astro.evaluation.vita.controls.control_table` returns them, of what rose.
        searched: Whether it is a search.
        figure: The figure over alpha and beta; None if it is none.
    """

    name: str
    record: dict[str, Any]
    made: dict[str, Any]
    gains: list[dict[str, Any]]
    controls: list[dict[str, Any]]
    searched: bool
    figure: Path | None


def write_vita(
    folders: Sequence[str | Path], out: str | Path, *, title: str = "ViTA", notes: Sequence[str] = ()
) -> list[Path]:
    """Write a page, with the figures of its searches beside it; the same runs give the same files, byte for byte.

    Args:
        folders: Folders of ``captum-astro vita search`` and ``vita evaluate``, in the order of the page; their names
            are its headings.
        out: The page, ``NAME.md``, in a folder that is created if it does not exist.
        title: The title.
        notes: Sentences for the page, in Markdown.

    Returns:
        The files.

    Raises:
        ValueError: If ``out`` is no Markdown file, no folder is given or two have one name, or a folder holds no
            finished run.
        OSError: If a file cannot be read or written.
    """
    out, paths = Path(out), [Path(folder) for folder in folders]
    names = headings(paths, out)
    runs = [_read(path) for path in paths]
    words = [quoted(f"$RUNS/{name}") for name in names]
    words += [f"--title {quoted(title)}", *(f"--note {quoted(note)}" for note in notes), f"--out {quoted(out.name)}"]
    figures = {run.name: out.with_name(f"{out.stem}-{run.name}.svg") for run in runs if run.figure is not None}
    templates = environment()
    templates.filters.update(
        score=_score, signed=partial(_score, sign="+"), percent=_percent, gain=_gain, setting=_setting
    )
    page = templates.get_template("astrocytes.md.jinja").render(
        title=title,
        notes=notes,
        answer=_answer(runs),
        runs=runs,
        figures={name: file.name for name, file in figures.items()},
        command=wrapped(["captum-astro vita report", *words]),
        level=LEVEL,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    for run in runs:
        if run.figure is not None:
            write_whole(figures[run.name], partial(_copy, run.figure.read_bytes()))
    write_whole(out, lambda file: file.write_bytes(visible(page).encode()))
    return [out, *figures.values()]


def _read(folder: Path) -> _Run:
    searched = (folder / "best.csv").is_file()
    tables = [folder / ("best.csv" if searched else "compared.csv"), folder / "controls.csv"]
    records = [folder / "run.json", folder / "made.json"]
    if not all(file.is_file() for file in (*tables, *records)):
        raise ValueError(f"{folder} holds no finished run: {_MADE}")
    found = [read_json(file) for file in records]
    if None in found:
        raise ValueError(f"{folder} holds a damaged run.json or made.json: {_MADE}")
    figure = folder / "curve.svg"
    gains, controls = (pd.read_csv(file).to_dict("records") for file in tables)
    rose = {(row["method"], row["metric"]) for row in gains if row["difference"] > 0}
    controls = [row for row in controls if (row["method"], row["metric"]) in rose]
    return _Run(folder.resolve().name, found[0] or {}, found[1] or {}, gains, controls, searched,
                figure if figure.is_file() else None)  # fmt: skip


def _answer(runs: Sequence[_Run]) -> str:
    """The first sentence: how many gains are certain, and how many of them no control explains."""
    certain = left = 0
    for run in runs:
        for row in filter(_gained, run.gains):
            certain += 1
            own = [c for c in run.controls if (c["method"], c["metric"]) == (row["method"], row["metric"])]
            left += len(own) == _CONTROLS and all(map(_gained, own))
    total = sum(len(run.gains) for run in runs)
    gains = f"{certain or 'none'} of {counted(total, 'comparison')}"
    beyond = f"; {left or 'none'} of these gains {'is' if left == 1 else 'are'} beyond every control" if certain else ""
    return f"Astrocytes certainly improve the agreement with people in {gains}{beyond}."


def _gained(row: dict[str, Any]) -> bool:
    return bool(row["difference"] > 0 and row["p_holm"] < LEVEL)


def _score(value: float, sign: str = "-") -> str:
    return MISSING if math.isnan(value) else f"{value:{sign}.3f}".replace("-", MINUS)


def _percent(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:.0f} %".replace("-", MINUS)


def _gain(row: dict[str, Any]) -> str:
    """The difference with its interval and its p-value; ~ before one that is not certain."""
    if math.isnan(row["difference"]):
        return MISSING
    same = "" if row["p_holm"] < LEVEL else "~"
    low, high = (_score(row[name], "+") for name in ("low", "high"))
    return f"{same}{_score(row['difference'], '+')}<br><small>[{low}, {high}] {p_value(row['p_holm'])}</small>"


def _setting(setting: dict[str, Any]) -> str:
    names = ("k", "tau", "phi", "alpha", "beta")
    return ", ".join([f"`{setting['layer'] or 'first projection'}`", *(f"{name} {setting[name]}" for name in names)])


def _copy(content: bytes, file: Path) -> None:
    file.write_bytes(content)
