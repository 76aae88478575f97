"""The command line of a benchmark, from its record: the same for everybody, wherever their files lie."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 76
DATA = "$DATA"
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


def portable(data: str) -> str:
    """A dataset without the location of its files.

    Example:
        >>> portable("boxes:/home/me/photos/"), portable("scenes"), portable("hf:owner/pets:test")
        ('boxes:$DATA/photos', 'scenes', 'hf:owner/pets:test')
    """
    name, colon, path = data.partition(":")
    if name == "hf" and re.match(r"\w", path) and not re.match(r"\w:[/\\]", path):
        return data  # the Hub's own name
    last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return f"{name}:{DATA}/{last}" if colon and last else data


def wrapped(words: Sequence[str]) -> str:
    r"""A command over lines that fit a page; a word in double quotes may go on in the next line.

    Example:
        >>> print(wrapped(["captum-astro bench", "--data " + "x" * 60, "-n 3"]))
        captum-astro bench \
            --data xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx -n 3
    """
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < WIDTH:
            lines[-1] += f" {word}"
        else:
            lines += textwrap.wrap(f"    {word}", WIDTH, break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines)


def quoted(text: str) -> str:
    r"""A word of a command, in which the shell still replaces ``$DATA`` and ``$RUNS``.

    Example:
        >>> print(quoted("$DATA/a b"), quoted("out"), quoted("$HOME"))
        "$DATA/a b" out "\$HOME"
    """
    if re.fullmatch(r"[\w.,:/=+@-]+", text):
        return text
    inert = re.sub(r'([`"\\]|\$(?!(?:DATA|RUNS)\b))', r"\\\1", text)
    return f'"{inert}"'


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
