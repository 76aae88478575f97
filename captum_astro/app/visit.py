"""What one visitor has on the page; nobody else sees it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image
from torchvision.transforms.functional import to_pil_image

from captum_astro.app.explained import Explained
from captum_astro.app.intake import Upload, files_of, from_folder, opened
from captum_astro.app.settings import Settings
from captum_astro.data.scenes import Scenes
from captum_astro.wording import counted


@dataclass
class Visit:
    """The images of one visitor, and the maps that are shown.

    Attributes:
        uploads: The images by name, as files in memory.
        scenes: How many scenes were asked for.
        explained: The maps on the page; None before there are any.
    """

    uploads: dict[str, Upload] = field(default_factory=dict)
    scenes: int = 0
    explained: Explained | None = None

    def add(self, uploads: Sequence[Upload], settings: Settings) -> None:
        """Keep images; one of the same name replaces the one before.

        Raises:
            ValueError: If there are too many.
        """
        names = {*self.uploads, *(upload.name for upload in uploads)}
        if len(names) > settings.images:
            raise ValueError(
                f"That would be {counted(len(names), 'image')}, of which {settings.images} are kept: reload the page "
                f"to start again."
            )
        self.uploads |= {upload.name: upload for upload in uploads}

    def offered(self, settings: Settings) -> list[str]:
        """The names of the images that can be chosen: the last upload first, then those of the app's folder."""
        return [*reversed(self.uploads), *(name for name in files_of(settings.folder)[0] if name not in self.uploads)]

    def image(self, name: str | None, settings: Settings) -> Image.Image:
        """An image by name, upright and in RGB.

        Raises:
            ValueError: If there is none of this name.
            ImageError: If it cannot be read.
        """
        if not name:
            raise ValueError("There is no image yet: drop one on the page, or try a scene.")
        return opened(self.uploads.get(name) or from_folder(name, settings), settings)

    def shown(self) -> Explained:
        """The maps on the page.

        Raises:
            ValueError: If there are none.
        """
        if self.explained is None:
            raise ValueError("There is no map yet: drop an image, and press Explain.")
        return self.explained


def scene(number: int) -> Upload:
    """A scene of the bundled models' test set, as a file: something to try without an image at hand."""
    held = io.BytesIO()
    to_pil_image(Scenes("test", number + 1)[number].image).save(held, "PNG")
    return Upload(f"scene_{number}.png", held.getvalue())
