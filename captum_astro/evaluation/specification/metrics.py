"""Which metrics are computed: by name, and by what the data supports."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from captum_astro.metrics.declaration import OF_THE_DATA, Need
from captum_astro.metrics.registry import all_metrics


def metrics_of(words: str | Sequence[str]) -> tuple[str, ...]:
    """Metrics by name, in the order of `all_metrics`, ignoring case.

    Args:
        words: Names, as a list or comma-separated, or ``all``. ``AUC`` is both directions; a kind (``segmentation``,
            ...) is all of its metrics. Of ``all`` and of a kind that has others, metrics that cost many passes of
            their own are left out: they have to be named.

    Raises:
        ValueError: If a name is unknown, or there is none.

    Example:
        >>> metrics_of("auc, saco")
        ('positive AUC', 'negative AUC', 'SaCo')
    """
    known = all_metrics()
    given = words.split(",") if isinstance(words, str) else list(words)
    usual = [name for name, metric in known.items() if not metric.on_request]
    groups: dict[str, list[str]] = {"all": usual, "auc": ["positive AUC", "negative AUC"]}
    for kind in dict.fromkeys(metric.kind for metric in known.values()):
        own = [name for name, metric in known.items() if metric.kind == kind]
        groups[kind] = [name for name in own if name in usual] or own
    groups |= {name.lower(): [name] for name in known}
    chosen: set[str] = set()
    for word in given:
        if word.strip().lower() not in groups:
            near = difflib.get_close_matches(word.strip().lower().replace("_", " "), groups, n=2)
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"There is no metric {word.strip()!r}. Metrics: {', '.join(known)}, or all.{meant}")
        chosen |= set(groups[word.strip().lower()])
    return tuple(name for name in known if name in chosen)


def lacking(wanted: Iterable[str], has: Iterable[Need]) -> dict[str, Need]:
    """The metrics that the data cannot support, and what it lacks.

    Args:
        wanted: Names.
        has: The annotations of the samples.

    Example:
        >>> lacking(["accuracy", "SaCo", "mIoU"], {"labels"})
        {'mIoU': 'masks'}
    """
    known, there = all_metrics(), set(has)
    missing = {
        name: [need for need in known[name].needs if need in OF_THE_DATA and need not in there] for name in wanted
    }
    return {name: needs[0] for name, needs in missing.items() if needs}
