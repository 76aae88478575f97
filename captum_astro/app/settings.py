"""What a running app offers and accepts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from captum_astro.models.bundled import PIT, PLAIN

BUNDLED = (PLAIN, PIT)


@dataclass(frozen=True)
class Settings:
    """What a running app offers and accepts; the same for every visitor.

    Attributes:
        folder: A folder whose images and weights files can be chosen on the page; None for uploads only.
        models: The only models that can be chosen; empty for any. Name them where strangers use the app: a large model
            needs time and memory.
        upload: Bytes of an uploaded file, at most.
        pixels: Pixels of an image, at most.
        images: Uploaded images that are kept for a visitor, at most.
        prompts: Texts for an image-text model, at most.
    """

    folder: Path | None = None
    models: tuple[str, ...] = ()
    upload: int = 20 * 2**20
    pixels: int = 40_000_000
    images: int = 8
    prompts: int = 50

    @property
    def first(self) -> str:
        """The model that is chosen when the page opens: one that needs no network, unless others are named."""
        return self.models[0] if self.models else PLAIN
