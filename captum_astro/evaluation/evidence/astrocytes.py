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
from captum_astro.evaluation.report.grid import LEVEL, MINUS, MISSING
from captum_astro.evaluation.report.visible import visible
from captum_astro.storage import read_json, write_whole
from captum_astro.wording import counted, p_value

_OWN, _SIMPLER = ("another", "class kept"), ("centre", "blurred")
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

    @property
    def dataset(self) -> str:
        """The name of the dataset, without its path."""
        return str(self.made["data"]).partition(":")[0]

    @property
    def rises(self) -> list[dict[str, Any]]:
        """The gains that are certain."""
        return [row for row in self.gains if _certain(row) and row["difference"] > 0]

    @property
    def falls(self) -> list[dict[str, Any]]:
        """The losses that are certain."""
        return [row for row in self.gains if _certain(row) and row["difference"] < 0]

    @property
    def own(self) -> int:
        """How many of the gains are certain with the image's own human map, and where the class is kept."""
        return self._beyond(_OWN)

    @property
    def beyond(self) -> int:
        """How many of the maps that gained are certainly better than a Gaussian and than the blurred plain map."""
        return self._beyond(_SIMPLER)

    def _beyond(self, controls: Sequence[str]) -> int:
        better = {
            (row["method"], row["metric"], row["control"])
            for row in self.controls
            if _certain(row) and row["difference"] > 0
        }
        return sum(all((row["method"], row["metric"], one) in better for one in controls) for row in self.rises)


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
    """The first sentences: how many gains and losses are certain, for each dataset, and what the controls leave."""
    parts = []
    for name in dict.fromkeys(run.dataset for run in runs):
        there = [run for run in runs if run.dataset == name]
        rises, falls = sum(len(run.rises) for run in there), sum(len(run.falls) for run in there)
        total = sum(len(run.gains) for run in there)
        parts.append(
            f"rises in {rises or 'none'} of {counted(total, 'comparison')} on {name} and falls in {falls or 'none'}"
        )
    answer = f"With astrocytes the agreement certainly {'; it '.join(parts)}."
    if not (gains := sum(len(run.rises) for run in runs)):
        return answer
    own, beyond = sum(run.own for run in runs), sum(run.beyond for run in runs)
    return (
        f"{answer} Of {counted(gains, 'gain')}, {own or 'none'} {'is' if own <= 1 else 'are'} certain both beside "
        f"another image's human map and where the class is kept; {beyond or 'none'} "
        f"{'leaves' if beyond <= 1 else 'leave'} a map that is better than a Gaussian at the centre and than the "
        f"blurred plain map."
    )


def _certain(row: dict[str, Any]) -> bool:
    return bool(row["p_holm"] < LEVEL)


def _score(value: float, sign: str = "-") -> str:
    return MISSING if math.isnan(value) else f"{value:{sign}.3f}".replace("-", MINUS)


def _percent(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:.0f} %".replace("-", MINUS)


def _gain(row: dict[str, Any]) -> str:
    """The difference with its interval and its p-value; ~ before one that is not certain."""
    if math.isnan(row["difference"]):
        return MISSING
    same = "" if _certain(row) else "~"
    low, high = (_score(row[name], "+") for name in ("low", "high"))
    test = p_value(row["p_holm"]).replace(" ", "&nbsp;")
    return f"{same}{_score(row['difference'], '+')}<br><small>[{low},&nbsp;{high}] {test}</small>"


def _setting(setting: dict[str, Any]) -> str:
    names = ("k", "tau", "phi", "alpha", "beta")
    return ", ".join([f"`{setting['layer'] or 'first projection'}`", *(f"{name} {setting[name]}" for name in names)])


def _copy(content: bytes, file: Path) -> None:
    file.write_bytes(content)
