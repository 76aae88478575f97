"""A sweep over all of timm's names: one small model of each kind is tried, in a process of its own."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import timm
import torch

from captum_astro.attr.explainers import explainers_named
from captum_astro.storage import write_whole
from captum_astro.support.apart import apart
from captum_astro.support.form import kind_of, trial
from captum_astro.support.outcome import outcomes

# VTranM stands for all methods that carry a row by the layout alone
METHODS = ("VTranM", "TransformerAttribution", "TokenGradCAM", "AttnLRP", "ConservativeLRP", "LRP")
_AT_ONCE = 50  # names whose kinds are found in one process
_SECONDS = 20.0  # for one of them
Kinds = dict[str, dict[str, Any]]


class Sweep:
    """The results of a sweep in a file, which a later one continues.

    Args:
        file: A JSON file, which need not exist. It holds the attributes below.

    Raises:
        ValueError: If the file is none of a sweep, or of another version of timm.

    Attributes:
        timm: The version.
        names: The digest of each name's kind.
        kinds: By digest: ``model_class``, the name that was ``tried`` and its ``parameters``, and, once it
            was, its ``image``, ``options`` and ``seconds``, the ``status`` by method, the methods by ``reasons``, and
            what is ``conserved``; or the ``error`` that ended it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        stored = _stored(file) if file.exists() else {"timm": timm.__version__}
        if stored["timm"] != timm.__version__:
            raise ValueError(
                f"{file} is of timm {stored['timm']}, and {timm.__version__} is installed: give another file, which "
                f"starts a new sweep, or install that version."
            )
        self.timm: str = stored["timm"]
        self.names: dict[str, str] = stored.get("names", {})
        self.kinds: Kinds = stored.get("kinds", {})

    def sort(self, names: Sequence[str], say: Callable[[str], None]) -> None:
        """Find the kinds of those names that have none."""
        missing = [name for name in names if name not in self.names]
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            say(f"Kinds of models: {start} of {len(missing)} names.")
            found = apart(_kinds_of, some, _SECONDS * len(some))
            if "error" in found:
                raise RuntimeError(f"The kinds of {some[0]} to {some[-1]} could not be found: {found['error']}")
            self._add(found)
            self.save()

    def tried(self, names: Sequence[str], again: bool, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Try the kinds of some names; each result is stored before it is returned.

        Args:
            names: Names whose kinds are known.
            again: Also those kinds that have been tried.
            seconds: After which a model is given up.
        """
        for kind in self._in_order(names):
            if "seconds" in kind and not again:
                continue
            started = time.monotonic()
            for key in set(kind) - {"tried", "model_class", "parameters"}:
                del kind[key]
            kind.update(apart(_try, kind["tried"], seconds))
            kind["seconds"] = round(time.monotonic() - started, 1)
            self.save()
            yield kind["tried"], kind

    def _in_order(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """The kinds of names: the smallest of each class, then the next of each, so that no class waits for another."""
        kinds = sorted({self.names[name]: self.kinds[self.names[name]] for name in names}.values(), key=_parameters)
        earlier: Counter[str] = Counter()
        ranks = []
        for kind in kinds:
            ranks.append(earlier[kind["model_class"]])
            earlier[kind["model_class"]] += 1
        return [kind for _, kind in sorted(zip(ranks, kinds, strict=True), key=lambda pair: pair[0])]

    def save(self) -> None:
        """Write the file: a line for each name and each kind, so that two versions can be compared."""

        def lines(entries: dict[str, Any]) -> str:
            return ",\n".join(f"{json.dumps(key)}: {json.dumps(entries[key])}" for key in sorted(entries))

        text = (
            f'{{"timm": "{self.timm}", "names": {{\n{lines(self.names)}\n}}, "kinds": {{\n{lines(self.kinds)}\n}}}}\n'
        )
        write_whole(self._file, lambda part: part.write_text(text))

    def _add(self, found: dict[str, Any]) -> None:
        """Note the kinds of names; the smallest model of a kind will be tried."""
        for name, kind in found.items():
            digest = kind.pop("digest")
            self.names[name] = digest
            known = self.kinds.get(digest)
            if known is None or ("seconds" not in known and kind["parameters"] < known["parameters"]):
                self.kinds[digest] = {"tried": name, **kind}


def _stored(file: Path) -> dict[str, Any]:
    try:
        stored = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as the results of a sweep: {error}. Give another file.") from error
    if not (isinstance(stored, dict) and {"timm", "names", "kinds"} <= stored.keys()):
        raise ValueError(f"{file} does not hold the results of a sweep, which would replace it. Give another file.")
    return stored


def _parameters(kind: dict[str, Any]) -> int:
    parameters: int = kind["parameters"]
    return parameters


def families() -> dict[str, str]:
    """The family of each name that timm itself registers: the module that defines it.

    Example:
        >>> families()["deit_tiny_patch16_224"]
        'deit'
    """
    modules = {name: timm.model_entrypoint(name).__module__ for name in timm.list_models()}
    return {name: module.split(".")[-1] for name, module in modules.items() if module.startswith("timm.")}


def names_like(patterns: Sequence[str]) -> list[str]:
    """The names that match a pattern, or whose family does; all of them for no patterns.

    Args:
        patterns: With ``*`` for any letters.

    Raises:
        ValueError: If a pattern matches nothing.

    Example:
        >>> names_like(["resnet10t*", "tnt"])
        ['resnet10t', 'tnt_b_patch16_224', 'tnt_s_legacy_patch16_224', 'tnt_s_patch16_224']
    """
    known = families()
    found: set[str] = set()
    for pattern in patterns or ("*",):
        some = {name for name, family in known.items() if fnmatch(name, pattern) or fnmatch(family, pattern)}
        if not some:
            raise ValueError(
                f"No name and no family of timm matches {pattern!r}: give one such as 'vit_tiny*' or swin."
            )
        found |= some
    return sorted(found)


def _kinds_of(names: list[str]) -> dict[str, Any]:
    return {name: asdict(kind_of(name)) for name in names}


def _try(name: str) -> dict[str, Any]:
    """What the methods give on the smallest form of a model."""
    torch.set_num_threads(1)
    form, model = trial(name)
    found = outcomes(model, form.images(), explainers_named(METHODS).values())
    reasons: dict[str, list[str]] = {}
    for one in found:
        if one.reason:
            first = one.reason if one.status == "approximate" else one.reason.split(". ")[0]
            reasons.setdefault(first, []).append(one.method)
    return {
        "image": form.image,
        "options": form.options,
        "shorter": form.shorter,
        "status": {one.method: one.status for one in found},
        "reasons": reasons,
        "conserved": {one.method: round(one.conserved, 3) for one in found if one.conserved is not None},
    }
