"""Optional dependencies: which extra provides each library, and one error for those that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# import name of a library -> the extras of pyproject.toml that provide it
EXTRAS: dict[str, tuple[str, ...]] = {
    "datasets": ("hub",),
    "google_crc32c": ("clickme",),
    "gradio": ("app",),
    "h5py": ("segmentation",),
    "jinja2": ("bench",),
    "open_clip": ("open_clip",),
    "pandas": ("bench", "train"),
    "pyarrow": ("bench", "train"),
    "quantus": ("bench",),
    "scipy": ("bench", "train"),
    "tokenizers": ("train",),
}
_PACKAGES = {"google_crc32c": "google-crc32c", "open_clip": "open_clip_torch"}


class MissingExtraError(ImportError):
    """An optional library is not installed; the message names the extra that provides it.

    Args:
        what: The feature that needs it.
        libraries: The libraries, by import name.
        extra: The extra to name; by default all that provide them.
    """

    def __init__(self, what: str, libraries: Sequence[str], extra: str | None = None) -> None:
        names = " and ".join(_PACKAGES.get(library, library) for library in libraries)
        are = "are" if len(libraries) > 1 else "is"
        common = [extra for extra in EXTRAS[libraries[0]] if all(extra in EXTRAS[other] for other in libraries)]
        named = [extra] if extra else common or ["all"]
        ways = " or ".join(f'pip install "captum-astro[{name}]"' for name in named)
        super().__init__(f"{what} needs {names}, which {are} not installed: {ways}", name=libraries[0])


def needed(what: str, *libraries: str) -> Any:
    """Import an optional library.

    Args:
        what: The feature that needs it; starts the message.
        *libraries: Names in `EXTRAS`, or submodules of such a library; all of them must be installed.

    Returns:
        The first of the modules.

    Raises:
        MissingExtraError: If one of them is not installed.

    Example:
        >>> needed("The table", "pandas").__name__
        'pandas'
    """
    require(what, *libraries)
    return import_module(libraries[0])


def require(what: str, *libraries: str, extra: str | None = None) -> None:
    """Check that libraries are installed, without importing them.

    Args:
        what: The feature that needs them; starts the message.
        *libraries: Names in `EXTRAS`.
        extra: The extra that the message names; by default all that provide them.

    Raises:
        MissingExtraError: If one of them is not installed.
    """
    roots = dict.fromkeys(library.split(".")[0] for library in libraries)
    missing = [library for library in roots if find_spec(library) is None]
    if missing:
        raise MissingExtraError(what, missing, extra)


def explained(error: ImportError) -> ImportError:
    """A `MissingExtraError` if an import failed because of a missing extra; any other error unchanged.

    Args:
        error: The error that an import raised.
    """
    library = (error.name or "").split(".")[0]
    if isinstance(error, MissingExtraError) or not isinstance(error, ModuleNotFoundError) or library not in EXTRAS:
        return error
    return MissingExtraError("This command", [library])
