"""What is not installed with the core: which extra brings it, and one error that says so."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# by the name under which a library is imported, the extras of pyproject.toml that bring it
EXTRAS: dict[str, tuple[str, ...]] = {
    "google_crc32c": ("clickme",),
    "h5py": ("segmentation",),
    "jinja2": ("bench",),
    "pandas": ("bench", "train"),
    "pyarrow": ("bench", "train"),
    "quantus": ("bench",),
    "scipy": ("bench", "train"),
    "tokenizers": ("train",),
}
_PACKAGES = {"google_crc32c": "google-crc32c"}


class MissingExtraError(ImportError):
    """A library is not installed that an extra of this package brings.

    Args:
        what: What needs it.
        libraries: The libraries, by the names under which they are imported.
        extra: The extra to name; by default all that bring them.
    """

    def __init__(self, what: str, libraries: Sequence[str], extra: str | None = None) -> None:
        names = " and ".join(_PACKAGES.get(library, library) for library in libraries)
        are = "are" if len(libraries) > 1 else "is"
        common = [extra for extra in EXTRAS[libraries[0]] if all(extra in EXTRAS[other] for other in libraries)]
        named = [extra] if extra else common or ["all"]
        ways = " or ".join(f'pip install "captum-astro[{name}]"' for name in named)
        super().__init__(f"{what} needs {names}, which {are} not installed: {ways}", name=libraries[0])


def needed(what: str, *libraries: str) -> Any:
    """Import a library that the core does without.

    Args:
        what: What needs it, at the beginning of the message.
        *libraries: Names in `EXTRAS`, or modules of such a library; all of them must be there.

    Returns:
        The first of them.

    Raises:
        MissingExtraError: If one is not installed.

    Example:
        >>> needed("The table", "pandas").__name__
        'pandas'
    """
    require(what, *libraries)
    return import_module(libraries[0])


def require(what: str, *libraries: str, extra: str | None = None) -> None:
    """See that libraries are installed, without importing them.

    Args:
        what: What needs them, at the beginning of the message.
        *libraries: Names in `EXTRAS`.
        extra: The extra that the message names; by default all that bring them.

    Raises:
        MissingExtraError: If one is not installed.
    """
    roots = dict.fromkeys(library.split(".")[0] for library in libraries)
    missing = [library for library in roots if find_spec(library) is None]
    if missing:
        raise MissingExtraError(what, missing, extra)


def explained(error: ImportError) -> ImportError:
    """The error of a library that is not installed, with the extra that brings it; any other as it is.

    Args:
        error: What an import raised.
    """
    library = (error.name or "").split(".")[0]
    if isinstance(error, MissingExtraError) or not isinstance(error, ModuleNotFoundError) or library not in EXTRAS:
        return error
    return MissingExtraError("This command", [library])
