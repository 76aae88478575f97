"""The command line of a benchmark, from its record: the same for everybody, wherever their files lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from captum_astro.command_lines import DATA, WIDTH, portable, quoted, wrapped

_OPTIONS = ("limit", "explained", "steps", "chunk_size", "examples", "crop", "amp", "device", "seed")
_DEFAULTS: dict[str, Any] = {
    "models": [], "methods": [], "metrics": [], "data": "", "pretrained": True, "limit": None, "explained": "both",
    "steps": 20, "chunk_size": 10, "examples": 40, "crop": "auto", "amp": "none", "device": "cpu", "seed": 0,
}  # fmt: skip


def command(record: Mapping[str, Any], out: str) -> str:
    """The command that makes a benchmark, over several lines; data and weights lie in the folder ``$DATA``.

    Args:
        record: As in `captum_astro.evaluation.run.results.BenchResults`.
        out: The folder for the results, as it is to be printed.

    Returns:
        The lines; empty if no command says it, as only some of the models have a checkpoint, or their classes differ.

    Example:
        >>> record = {"configuration": {"models": ["vit"], "methods": ["LRP"], "data": "boxes:/home/me/photos"}}
        >>> print(command(record, "out"))
        captum-astro bench -M vit --data "boxes:$DATA/photos" -m LRP --out out
    """
    found: Mapping[str, Any] = {**_DEFAULTS, **record.get("configuration", {})}
    made: Mapping[str, Any] = record.get("made", {})
    checkpoints, classes = made.get("checkpoints", []), {*made.get("classes", [])}
    if len({name is None for name in checkpoints}) > 1 or len(classes) > 1:
        return ""
    preset, files = made.get("preset"), [name for name in checkpoints if name]
    words = [f"--preset {preset[0]} --part {preset[1]}"] if preset else []
    words += [f"-M {quoted(name.partition('@')[0])}" for name in found["models"]]
    words += [f"-c {quoted(f'{DATA}/{name}')}" for name in files]
    words += [f"--classes {count}" for count in classes - {None}]
    words += [] if made.get("ema", True) else ["--no-ema"]
    words += [] if files or found["pretrained"] else ["--no-pretrained"]
    words += [f"--data {quoted(portable(found['data']))}"]
    words += [f"-m {quoted(names)}" for names in listed(found["methods"])]
    words += [f"--metrics {quoted(names)}" for names in listed(found["metrics"])]
    words += [
        f"--{name.replace('_', '-')} {quoted(str(found[name]))}"
        for name in _OPTIONS
        if found.get(name) is not None and found[name] != _DEFAULTS[name]
    ]
    return wrapped(["captum-astro bench", *words, f"--out {quoted(out)}"])


def listed(names: Sequence[str]) -> list[str]:
    """Names joined with commas, as many at a time as fit on a line.

    Example:
        >>> listed(["LRP", "VTranM", "x" * 60])[0]
        'LRP,VTranM'
    """
    found: list[str] = []
    for name in names:
        if found and len(found[-1]) + len(name) < WIDTH - 20:
            found[-1] += f",{name}"
        else:
            found.append(name)
    return found
