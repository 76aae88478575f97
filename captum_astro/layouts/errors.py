"""What is raised when a model cannot be explained rightly."""

from __future__ import annotations


class UnsupportedModelError(NotImplementedError):
    """The model, or a module in it, has no layout that holds for it.

    The message names the module, the reason and what would work instead. Raised rather than returning a
    map that is empty or wrong.
    """
