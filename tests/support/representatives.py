"""A small model of every class that timm has, in the form in which the sweep tried it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm

from captum_astro.support.sweep import Sweep

_RESULTS = Path(__file__).parents[2] / "docs" / "timm.json"


def representatives(*names: str, parameters: float = float("inf")) -> list[Any]:
    """Test parameters: the smallest kind of each class and status of methods.

    Args:
        names: Those of the models that the sweep tried, instead.
        parameters: Models of fewer are wanted.
    """
    tried = _tried()
    each = {kind["tried"]: kind for kind in tried if kind["tried"] in names}
    smallest = {str([kind["model_class"], kind["status"]]): kind for kind in reversed(tried)}
    found = each.values() if names else reversed(smallest.values())
    wanted = [kind for kind in found if kind["parameters"] < parameters]
    skipped = pytest.param({}, marks=pytest.mark.skip("docs/timm.json is of another version of timm"))
    return [pytest.param(kind, id=kind["tried"]) for kind in wanted] or [skipped]


def _tried() -> list[dict[str, Any]]:
    """What the sweep tried, the smallest models first."""
    if f'"timm": "{timm.__version__}"' not in _RESULTS.read_text():
        return []
    kinds = [kind for kind in Sweep(_RESULTS).kinds.values() if "status" in kind]
    return sorted(kinds, key=lambda kind: (kind["parameters"], kind["tried"]))
