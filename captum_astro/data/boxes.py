"""Hand-drawn boxes in place of human attention maps, for use without ClickMe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import Dataset

from captum_astro.data.human import HumanSample
from captum_astro.data.image_table import ImageTable
from captum_astro.data.registry import register_data
from captum_astro.data.samples import HumanSamples


class Boxes(Dataset[HumanSample]):
    r"""A folder of images with a table of boxes; the human map is 1 inside the boxes of an image and 0 outside.

    The table is a CSV with the columns ``file,label,x0,y0,x1,y1`` in any order; others are ignored. ``file`` is
    relative to the folder. A box is in pixels of the image as displayed, that is after EXIF rotation, with the origin
    at the top left: a pixel belongs to it if its centre does, so ``0,0,W,H`` is the whole of a W x H image. One file
    may have several rows, all with the same label; ``label`` may be empty. Samples come in the order in which the files
    first appear. ``human`` has sharp edges: ``prepare_heatmap`` blurs it.

    Args:
        folder: The folder of the images.
        csv: The table, relative to the folder.

    Raises:
        FileNotFoundError: If there is no such table, or a file in it does not exist.
        ValueError: If a column is missing, or a row has no number where one belongs, an empty box, or another label
            than an earlier row of the same file. A box that leaves its image raises when that sample is read.
            Messages about rows name the line of the table.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (6, 4)).save(f"{folder}/a.png")
        ...     _ = Path(folder, "boxes.csv").write_text("file,label,x0,y0,x1,y1\na.png,7,1,0,3,2\n")
        ...     sample = Boxes(folder)[0]
        >>> sample.name, sample.label, sample.image.shape, sample.human.sum()
        ('a.png', 7, torch.Size([3, 4, 6]), tensor(4.))
    """

    def __init__(self, folder: Path | str, csv: Path | str = "boxes.csv") -> None:
        self._table = ImageTable(folder, csv, boxes=True)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> HumanSample:
        image, inside, label, name = self._table[index]
        human = torch.zeros(image.shape[1:]) if inside is None else inside.float()
        return HumanSample(image, human, label, name)


@register_data("boxes", human=lambda path, limit: _in_order(Boxes(path)))
def _boxes(folder: Path) -> HumanSamples:
    return HumanSamples(Boxes(folder))


def _in_order(boxes: Boxes) -> Iterator[HumanSample]:
    return (boxes[index] for index in range(len(boxes)))
