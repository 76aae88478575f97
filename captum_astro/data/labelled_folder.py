"""A folder of images with a table of their classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import Dataset

from captum_astro.data.image_table import ImageTable
from captum_astro.data.registry import register_data
from captum_astro.data.samples import Sample


@register_data("folder")
class LabelledFolder(Dataset[Sample]):
    r"""Images with classes, and boxes around the object if the table has them.

    The table is a CSV with the columns ``file,label`` and optionally ``x0,y0,x1,y1``, as for `Boxes`; others are
    ignored. The mask is 1 inside the boxes of an image and 0 outside; an image without a box has no mask.

    Args:
        folder: The folder of the images.
        csv: The table, relative to the folder.

    Raises:
        FileNotFoundError: If there is no such table, or a file in it does not exist.
        ValueError: As for `Boxes`, except that the four edges may be empty: such a row has no box.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (6, 4)).save(f"{folder}/a.png")
        ...     _ = Path(folder, "labels.csv").write_text("file,label,note\na.png,7,mine\n")
        ...     sample = LabelledFolder(folder)[0]
        >>> sample.name, sample.label, sample.image.shape, sample.mask
        ('a.png', 7, torch.Size([3, 4, 6]), None)
    """

    def __init__(self, folder: Path | str, csv: Path | str = "labels.csv") -> None:
        self._table = ImageTable(folder, csv, boxes=False)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Sample:
        image, inside, label, name = self._table[index]
        return Sample(image, label, None if inside is None else inside.to(torch.int8), None, name)
