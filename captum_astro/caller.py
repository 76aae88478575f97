"""Warnings that point at the line of the user's own code."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

# packages that a call passes through on its way here: decorators, module calls, methods that explain many inputs
_PASSED_THROUGH = ("captum_astro", "captum", "torch", "quantus")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line outside this package and outside the libraries that call it for the user.

    Python's own ``skip_file_prefixes`` needs Python 3.12.

    Args:
        message: What is wrong, and how to fix it.
        category: The warning category.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as found:
        ...     warn("The map is zero.")
        >>> str(found[0].message)
        'The map is zero.'
    """
    level, frame = 2, sys._getframe(1)  # the caller of this function
    while frame.f_back is not None and _inside(frame.f_globals.get("__name__"), frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _inside(module: str | None, file: str) -> bool:
    package = (module or "").partition(".")[0]
    return package in _PASSED_THROUGH or Path(file).name == "contextlib.py"
