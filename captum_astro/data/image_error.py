"""The error for images."""

from __future__ import annotations

from captum_astro.data.tables import DataError


class ImageError(DataError):
    """A file, or encoded bytes, that cannot be opened as an image or does not say what its pixels mean."""
