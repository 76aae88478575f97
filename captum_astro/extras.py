"""Libraries that only some tasks need, and that are installed by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Stand around imports inside a function, so that a library that is missing is an error with a way out.

    Args:
        name: The extra of this package that installs the libraries.

    Raises:
        ModuleNotFoundError: If one is not installed.

    Example:
        >>> with extra("train"):
        ...     import library_of_nobody
        Traceback (most recent call last):
            ...
        ModuleNotFoundError: library_of_nobody is not installed: pip install "captum-astro[train]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        raise ModuleNotFoundError(
            f'{library} is not installed: pip install "captum-astro[{name}]"', name=error.name
        ) from error
