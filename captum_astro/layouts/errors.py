"""The error for a model that cannot be explained correctly."""

from __future__ import annotations


class UnsupportedModelError(NotImplementedError):
    """The model, or a module in it, has no layout that matches it.

    The message names the module, the reason and what would work instead. Raised instead of returning a map that is
    empty or wrong.
    """
