"""The tables of a benchmark as files: CSV with every column, Markdown and LaTeX in the layout of a paper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from captum_astro.evaluation import analysis
from captum_astro.evaluation.report import grid
from captum_astro.evaluation.report.choice import reference
from captum_astro.evaluation.report.visible import visible
from captum_astro.storage import as_csv, write_whole

_NOTE = (
    "Bold is the best of a column, ~ not distinguishable from it (Wilcoxon, Holm, p at least 0.05); in brackets 95 % "
    "bootstrap intervals."
)
_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", grid.MINUS: "$-$",
}  # fmt: skip


def write_tables(folder: str | Path, out: str | Path, against: str | None = None, bootstrap: int = 2000) -> list[Path]:
    """Write ``summary.csv``, ``comparisons.csv``, ``ranking.csv``, ``failures.csv``, ``tables.md`` and ``tables.tex``.

    In Markdown and LaTeX each family of metrics is a table per model; the best of a column is bold, and ``~`` marks
    what is not distinguishable from it. The LaTeX needs the package booktabs.

    Args:
        folder: Folder of the run.
        out: The folder for the files; created if it does not exist.
        against: The reference method of the comparisons; by default VTranM, or the first one if it was not run.
        bootstrap: The number of bootstrap samples.

    Returns:
        The files.

    Raises:
        ValueError: If there are no results in the folder, or a model was run without the method.
        OSError: If a file cannot be read or written.
    """
    from captum_astro.evaluation.run.results import read_run

    rows, out = read_run(Path(folder)).rows, Path(out)
    out.mkdir(parents=True, exist_ok=True)
    models = [rows[rows["model"] == model] for model in pd.unique(rows["model"])]
    summary = analysis.summary(rows, bootstrap)
    found = {
        "summary": summary,
        "comparisons": pd.concat([analysis.comparisons(own, reference(own, against), bootstrap) for own in models]),
        "ranking": analysis.ranking(rows, bootstrap),
        "failures": analysis.failures(rows),
    }
    texts = {f"{name}.csv": as_csv(table) for name, table in found.items()}
    blocks = _blocks(rows, summary, bootstrap)
    texts["tables.md"] = visible("\n".join(_in_markdown(blocks)))
    texts["tables.tex"] = visible("\n".join([f"% {_NOTE}", *(latex(one, model) for one, model in blocks)]))
    for name, text in texts.items():
        write_whole(out / name, partial(_written, text))
    return [out / name for name in texts]


def score_tables(rows: pd.DataFrame, summary: pd.DataFrame, bootstrap: int) -> list[str]:
    """The scores in Markdown: a note, then the tables of each model.

    Args:
        rows: As `captum_astro.evaluation.run.rows.Row`.
        summary: From `captum_astro.evaluation.analysis.summary`.
        bootstrap: The number of bootstrap samples.
    """
    return _in_markdown(_blocks(rows, summary, bootstrap))


def _blocks(rows: pd.DataFrame, summary: pd.DataFrame, bootstrap: int) -> list[tuple[grid.Grid, str]]:
    """The tables, each with its model."""
    top = analysis.comparisons(rows, None, bootstrap)
    return [
        (one, str(model))
        for model, own in summary.groupby("model", sort=False)
        for one in grid.scores(own, top[top["model"] == model])
    ]


def _in_markdown(blocks: list[tuple[grid.Grid, str]]) -> list[str]:
    return [f"{_NOTE}\n", *(markdown(one, model) for one, model in blocks)]


def markdown(table: grid.Grid, model: str) -> str:
    """A table of scores in Markdown."""
    head = ["method", *(f"{column.info.name} {column.arrow} {column.below}".strip() for column in table.columns)]
    lines = [head, ["---", *["---:"] * len(table.columns)]]
    for name, cells in {**table.rows, **table.foot}.items():
        lines.append([_markdown(name), *(_cell(cell, "**", "**") for cell in cells)])
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"### {_markdown(model)}: {table.title}\n\n{body}\n"


def latex(table: grid.Grid, model: str) -> str:
    """A table of scores in LaTeX, for the package booktabs."""
    head = ["method", *(f"{column.info.name} {column.arrow}" for column in table.columns)]
    below = ["", *(column.below for column in table.columns)]
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(model)}: {_tex(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        _row([_tex(word) for word in head]),
        _row([_tex(word) for word in below]),
        r"\midrule",
        *(_row([_tex(name), *map(_tex_cell, cells)]) for name, cells in table.rows.items()),
        *([r"\midrule"] if table.foot else []),
        *(_row([_tex(name), *map(_tex_cell, cells)]) for name, cells in table.foot.items()),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _cell(cell: grid.Cell, before: str, after: str) -> str:
    text = f"{before}{cell.text}{after}" if cell.mark == "best" else cell.text
    return " ".join([f"~{text}" if cell.mark == "near" else text, *cell.small])


def _tex_cell(cell: grid.Cell) -> str:
    text = _tex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.mark == "best" else rf"$\sim${text}" if cell.mark == "near" else text
    return " ".join([text, *(rf"{{\footnotesize {_tex(small)}}}" for small in cell.small)])


def _row(words: Sequence[str]) -> str:
    return " & ".join(words) + r" \\"


def _markdown(text: str) -> str:
    """Escape text: neither columns, nor emphasis, nor HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", " ".join(text.split()))


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)


def _written(text: str, file: Path) -> None:
    file.write_bytes(text.encode())
