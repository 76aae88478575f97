"""Shared code of the astrocyte tests."""

from __future__ import annotations

from typing import Any

MILD: dict[str, Any] = {"k": 4, "tau": 2, "phi": 0.0, "beta": 0.3}  # both signs matter at every layer
