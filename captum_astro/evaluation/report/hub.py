"""A benchmark in the form of the Hugging Face Hub: a data set of its rows, and results for the models' pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from captum_astro.evaluation import analysis
from captum_astro.evaluation.report.files import score_tables
from captum_astro.evaluation.report.hub_card import as_yaml, card, file_names, slug
from captum_astro.storage import RECORD, write_whole
from captum_astro.wording import counted

DETAILS = "results/details.parquet"
_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("method", pa.string()),
        ("options", pa.string()),
        ("metric", pa.string()),
        ("explained", pa.string()),
        ("image", pa.int64()),
        ("name", pa.string()),
        ("value", pa.float64()),
        ("error", pa.string()),
    ]
)


def write_hub(folder: str | Path, out: str | Path, bootstrap: int = 2000) -> list[Path]:
    """Write a finished benchmark as a folder that can be uploaded to the Hugging Face Hub.

    ``README.md`` is the card of a data set, with its tables of scores and how to run it again; ``run.json`` the record
    of the run; ``results/details.parquet`` has a row for each model, method, metric, explained class and image; and
    ``models/MODEL/.eval_results/METHOD.yaml`` has a method's scores in the form that the page of a model shows.

    Args:
        folder: Folder of the run.
        out: The folder for the files; created if it does not exist.
        bootstrap: The number of bootstrap samples, for the intervals in the card.

    Returns:
        The files.

    Raises:
        ValueError: If there are no results in the folder, or the run is not finished.
        OSError: If a file cannot be read or written.
    """
    from captum_astro.evaluation.run.results import read_run

    folder, out = Path(folder), Path(out)
    found = read_run(folder)
    if not found.finished:
        raise ValueError(f"{folder}: the benchmark is not finished. The same captum-astro bench command resumes it.")
    summary = analysis.summary(found.rows, bootstrap)
    ended = datetime.fromtimestamp((folder / "results.parquet").stat().st_mtime, timezone.utc)
    data = _data_id(str(found.config.get("configuration", {}).get("data", "")))
    texts = {
        "README.md": card(found.config, data, DETAILS, score_tables(found.rows, summary, bootstrap)),
        RECORD: json.dumps(found.config, indent=1) + "\n",
        **dict(_eval_results(summary, data, f"{ended:%Y-%m-%d}")),
    }
    for name, text in texts.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(out / name, partial(_written, text))
    (out / DETAILS).parent.mkdir(exist_ok=True)
    write_whole(out / DETAILS, partial(pq.write_table, _details(found.rows)))
    return [out / name for name in [*texts, DETAILS]]


def _details(rows: pd.DataFrame) -> pa.Table:
    """The rows without their curves, and with the options of a method in a column of their own."""
    names = rows["method"].str.partition(":")
    columns = rows.assign(method=names[0], options=names[2], image=rows["sample"])
    return pa.Table.from_pandas(columns[_SCHEMA.names], _SCHEMA, preserve_index=False).replace_schema_metadata()


def _eval_results(summary: pd.DataFrame, data: str, date: str) -> Iterator[tuple[str, str]]:
    """The scores of each method of each model: the name of a file, and its YAML."""
    scores = summary[summary["mean"].notna()]
    models, methods = (file_names(pd.unique(scores[column])) for column in ("model", "method"))
    for (model, method), own in scores.groupby(["model", "method"], sort=False):
        entries = [
            {
                "dataset": {"id": data, "task_id": slug(f"{row['metric']} {row['explained']}").lower()},
                "value": float(row["mean"]),
                "date": date,
                "notes": f"{'' if method == '-' else f'{method}, '}{counted(row['n'], 'image')}, "
                f"95 % interval {row['low']:.4g} to {row['high']:.4g}",
            }
            for _, row in own.iterrows()
        ]
        yield f"models/{models[model]}/.eval_results/{methods[method]}.yaml", as_yaml(entries)


def _data_id(data: str) -> str:
    """The Hub's name of the data, if it has one; otherwise what the benchmark calls it.

    Example:
        >>> _data_id("hf:uoft-cs/cifar10:test"), _data_id("hf:/data/pets"), _data_id("imagenet:/data/val")
        ('uoft-cs/cifar10', 'pets', 'imagenet')
    """
    word, _, place = data.partition(":")
    if word != "hf":
        return word
    name = place.partition(":")[0]
    return Path(name).name if Path(name).exists() or Path(name).is_absolute() else name


def _written(text: str, file: Path) -> None:
    file.write_bytes(text.encode())
