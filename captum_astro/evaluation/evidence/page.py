"""A page of evidence: Markdown with a figure, from the folders of finished or unfinished runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from captum_astro.command_lines import quoted, wrapped
from captum_astro.evaluation.evidence.figure import write_figure
from captum_astro.evaluation.evidence.section import Section, made, sections
from captum_astro.evaluation.evidence.text import breakable, code, headings, inert
from captum_astro.evaluation.report.grid import LEVEL, MISSING
from captum_astro.evaluation.report.visible import visible
from captum_astro.evaluation.specification.presets import PRESETS
from captum_astro.storage import write_whole
from captum_astro.wording import counted


def write_evidence(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    title: str = "Evidence",
    notes: Sequence[str] = (),
    bootstrap: int = 2000,
) -> list[Path]:
    """Write a page and its figure; the same runs give the same files, byte for byte.

    Args:
        folders: Folders of runs, in the order of the page; their names are its headings.
        out: The page, ``NAME.md``, in a folder that is created if it does not exist; the figure is
            ``NAME.svg`` beside it, if there is anything to rank.
        title: The title.
        notes: Sentences for the page, in Markdown.
        bootstrap: The number of bootstrap samples.

    Returns:
        The files.

    Raises:
        ValueError: If ``out`` is no Markdown file, no folder is given or two have one name, or a folder holds no rows.
        OSError: If a file cannot be read or written.
    """
    from captum_astro.evaluation.run.results import read_run

    out, paths = Path(out), [Path(folder) for folder in folders]
    names = headings(paths, out)
    runs = [read_run(path) for path in paths]
    empty = next((path for path, run in zip(paths, runs, strict=True) if run.rows.empty), None)
    if empty is not None:
        raise ValueError(f"{empty} holds no rows: captum-astro bench, run again, makes them.")
    named = [Path(name) for name in names]
    parts = [part for name, run in zip(named, runs, strict=True) for part in sections(name, run, bootstrap)]
    ranked = [part for part in parts if part.verdict is not None]
    figure = out.with_suffix(".svg")
    page = environment().get_template("page.md.jinja").render(
        title=title,
        notes=notes,
        answer=_answer(ranked),
        ranked=ranked,
        parts=parts,
        figure=figure.name,
        made=[made(name, run) for name, run in zip(named, runs, strict=True)],
        command=_command(names, out, title, notes),
        presets=[_own(*preset) for preset in sorted({part.preset for part in parts if part.preset})],
        bootstrap=bootstrap,
        level=LEVEL,
        missing=MISSING,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    if ranked:
        write_whole(figure, partial(write_figure, ranked))
    write_whole(out, lambda file: file.write_bytes(visible(page).encode()))
    return [out, figure] if ranked else [out]


def _answer(ranked: Sequence[Section]) -> str:
    """The first sentence: the result, and whether it is certain."""
    if not ranked:
        return "Nothing on this page ranks the methods: it describes them."
    if len(ranked) == 1 and ranked[0].verdict is not None:
        return ranked[0].verdict.answer
    [(first, times), *_] = Counter(str(part.ranks["method"].iloc[0]) for part in ranked).most_common()
    leads = [lead for part in ranked if part.verdict is not None for lead in part.verdict.leads]
    won = [lead for lead in leads if lead.best == first]
    sure = sum(lead.certain for lead in won)
    comparisons, scores = counted(len(ranked), "comparison"), counted(len(leads), "score")
    best = f"; it is the best by {len(won)} of {scores}, for certain by {sure or 'none'}"
    none = f", but is the best by none of {scores}: no win is certain"
    return f"{first} has the best mean rank in {times} of {comparisons}{best if won else none}."


def _command(names: Sequence[str], out: Path, title: str, notes: Sequence[str]) -> str:
    """The command that writes the page."""
    words = [quoted(f"$RUNS/{name}") for name in names]
    words += [f"--title {quoted(title)}", *(f"--note {quoted(note)}" for note in notes), f"--out {quoted(out.name)}"]
    return wrapped(["captum-astro evidence", *words])


def _own(preset: str, part: str) -> str:
    """The command for the paper's own models and data; models that are not published are the reader's."""
    known = preset not in PRESETS or PRESETS[preset].models
    words = [f"--preset {quoted(preset)} --part {quoted(part)}", *([] if known else ["-M MODEL -c WEIGHTS"])]
    return wrapped(["captum-astro bench", *words, '--data-root "$DATA"', f"--out {quoted(f'$RUNS/{preset}-{part}')}"])


def environment() -> Environment:
    """The templates of the pages, and the filters that keep names from being markup."""
    found = Environment(
        loader=PackageLoader("captum_astro.evaluation.evidence", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: `inert` is what keeps names from being markup
    )
    found.filters.update(inert=inert, code=code, breakable=breakable)
    return found
