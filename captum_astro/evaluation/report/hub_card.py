"""The card of a benchmark on the Hugging Face Hub, and the names and the YAML of its files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from captum_astro.evaluation.report.visible import visible
from captum_astro.evaluation.specification.command import command

_TAGS = ["captum-astro", "explainability", "vision-transformer", "benchmark"]
_UNKNOWN = "not recorded: the run is of an earlier version, or was started in Python with what no command says"
_TEXT = """
# Explanations of {models}

Methods that explain Vision Transformers, compared on `{data}` by [captum-astro](https://pypi.org/project/captum-astro).
No licence is set: add `license:` to the first lines of this file.

| file | contents |
|---|---|
| `{details}` | a row for each model, method, metric, explained class and image |
| `run.json` | the record of the run: all options and seeds, versions, digests of the weights, day, machine |
| `models/MODEL/.eval_results/` | for the repository of that model: the scores of each method |

The column `value` is null where the inputs leave it undefined, or where something failed: `error` says why. In the
results for models, `dataset.id` is the Hub's name of the data if it was read by that name; otherwise put the name of a
benchmark there.

## How to run it again

```console
$ {command}
```

Set `DATA` to the folder with your copies of the data and weights. The command writes `results/results.parquet`, whose
rows are those of this data set; with one `-m` and one `--metrics` it writes those rows alone. Values are the same bit
for bit on a machine of the same kind, and may differ in their last digits on another.

```yaml
{record}```

## Scores

{scores}"""


def card(record: Mapping[str, Any], data: str, details: str, scores: Sequence[str]) -> str:
    """The text of ``README.md``.

    Args:
        record: The record of the run.
        data: The name of the data.
        details: The Parquet file, relative to the card.
        scores: Tables in Markdown.
    """
    models = ", ".join(map(str, record.get("models", {})))
    first = {
        "pretty_name": f"Explanations of {models} on {data}",
        "tags": _TAGS,
        "configs": [{"config_name": "default", "data_files": [{"split": "test", "path": details}]}],
    }
    made: Mapping[str, Any] = record.get("made", {})
    kept = {
        "seed": record.get("configuration", {}).get("seed"),
        "machine": made.get("machine", _UNKNOWN),
        "versions": record.get("versions"),
        "models": record.get("models"),
        "images": record.get("samples", {}).get("count"),
    }
    text = _TEXT.format(
        models=models,
        data=data,
        details=details,
        command=(made and command(record, "results")) or _UNKNOWN,
        record=as_yaml(kept),
        scores="\n".join(scores),
    )
    return visible(f"---\n{as_yaml(first)}---\n{text}")


def as_yaml(value: Any) -> str:
    """Plain objects as YAML, in their order."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**6))


def slug(text: str) -> str:
    """Text as the name of a file: letters, digits, dots, hyphens and underscores.

    Example:
        >>> slug("VTranM:output=logit"), slug("../a"), slug("-")
        ('VTranM-output-logit', 'a', 'model')
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "model"


def file_names(labels: Iterable[str]) -> dict[str, str]:
    """A name for each label, different from all others also where case does not count.

    Example:
        >>> file_names(["a:b", "A b", "-"])
        {'a:b': 'a-b', 'A b': 'A-b-2', '-': 'model'}
    """
    found: dict[str, str] = {}
    for label in labels:
        name, number = slug(label), 1
        while name.lower() in {one.lower() for one in found.values()}:
            name, number = f"{slug(label)}-{number + 1}", number + 1
        found[label] = name
    return found
