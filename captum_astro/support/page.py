"""The results of a sweep as a page in Markdown: a table of families, and every name."""

from __future__ import annotations

from collections import Counter
from typing import Any

from captum_astro.support.sweep import METHODS, Sweep, families

_ORDER = ("exact", "approximate", "refused", "failed", "not tried")
_INTRODUCTION = """# Every timm model

What the methods give on each of the {names:,} names of timm {timm}. `captum-astro sweep` found it and wrote this page.
Names whose models have the same classes of modules with the same switches are one kind. Of the {kinds} kinds, {tried}
have been tried so far, each on its smallest model: with random weights, with fewer layers if all parts still occur,
and on the smallest image that it accepts. [What is supported](models.md) describes the families in words.

- *exact*: a map, whose parts are all carried exactly. For `TokenGradCAM`: a map of a layer that is a grid of places.
- *approximate*: a map, with a part that is carried by a stated rule.
- *refused*: `UnsupportedModelError`, with a reason.
- *failed*: any other error, or a map that is zero, not finite or far larger than the output.

`VTranM` stands for `ATTCAT`, `AttentionGradCAM`, `AttentionRollout`, `RawAttention` and `TransformerMM`, and
`TokenGradCAM` for `TokenGradCAMPlusPlus`. The numbers count names. "At the pixels" is the part of the output that the
relevance of all pixels sums to.
"""


def page(results: Sweep) -> str:
    """The page of a sweep.

    Args:
        results: The sweep, of which some kinds may not have been tried.
    """
    family = families()
    names: dict[str, list[str]] = {}
    for name in sorted(results.names, key=lambda name: (family[name], name)):
        names.setdefault(family[name], []).append(name)
    tried = sum("seconds" in kind for kind in results.kinds.values())
    introduction = _INTRODUCTION.format(
        names=len(results.names), timm=results.timm, kinds=len(results.kinds), tried=tried
    )
    head = ["| family | names | " + " | ".join(METHODS) + " |", "|---" * (2 + len(METHODS)) + "|"]
    rows = [
        f"| {name} | {len(some)} | " + " | ".join(_counts(results, some, method) for method in METHODS) + " |"
        for name, some in names.items()
    ]
    folded = [_family(results, name, some) for name, some in names.items()]
    return "\n".join([introduction, "## Families", "", *head, *rows, "", "## Names", "", *folded])


def _counts(results: Sweep, names: list[str], method: str) -> str:
    found = Counter(_status(results.kinds[results.names[name]], method) for name in names)
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{found[status]} {status}" for status in _ORDER if status in found)


def _status(kind: dict[str, Any], method: str) -> str:
    if "seconds" not in kind:
        return "not tried"
    status: str = kind["status"][method] if "status" in kind else "failed"
    return status


def _family(results: Sweep, family: str, names: list[str]) -> str:
    """A family's names by their kind, folded."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(results.names[name], []).append(name)
    items = [_item(results.kinds[digest], some) for digest, some in kinds.items()]
    return (
        f'<details markdown="1"><summary>{family}: {len(names)}</summary>\n\n' + "\n".join(items) + "\n\n</details>\n"
    )


def _item(kind: dict[str, Any], names: list[str]) -> str:
    said = ", ".join(f"`{name}`" for name in names)
    if "seconds" not in kind:
        return f"- {said}: not tried"
    size = " x ".join(map(str, kind.get("image", ())[1:]))
    lines = [f"- {said} (tried: `{kind['tried']}`" + (f", {size}" if size else "") + ")"]
    if "error" in kind:
        return "\n".join([*lines, f"    - failed: {_plain(kind['error'])}"])
    reasoned = {method: why for why, methods in kind["reasons"].items() for method in methods}
    groups: dict[tuple[str, str], list[str]] = {}
    for method, status in kind["status"].items():
        kept = kind["conserved"].get(method)
        text = method if kept is None else f"{method} ({kept:.2f} at the pixels)"
        groups.setdefault((status, reasoned.get(method, "")), []).append(text)
    for (status, why), methods in groups.items():
        lines.append(f"    - {status}: {', '.join(methods)}" + (f". {_plain(why)}" if why else ""))
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text in which nothing is markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_<>[]|#" else letter for letter in text)
