"""The versions that results depend on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

LIBRARIES = ("captum_astro", "torch", "torchvision", "timm", "captum", "numpy", "pillow")


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """The versions of the libraries and of Python; ``unknown`` for what is not installed, such as a source folder.

    Example:
        >>> versions(["torch"])["torch"] == torch.__version__
        True
    """
    return {**{name: _version(name) for name in libraries}, "python": platform.python_version()}


def _version(library: str) -> str:
    if library == "torch":
        return str(torch.__version__)  # with the build, which may affect results
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"
