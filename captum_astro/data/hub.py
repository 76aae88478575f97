"""Image classification data in the Hugging Face Hub's form: local files, or by the Hub's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from captum_astro.data.files import DataError, read_whole
from captum_astro.data.hub_files import IMAGE, LABEL, LabelledCells, chosen_split, read_files
from captum_astro.data.images import open_encoded
from captum_astro.data.registry import register_data
from captum_astro.data.samples import Sample, checked
from captum_astro.data.tables import labels
from captum_astro.extras import needed

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_WITH_SPLIT = re.compile(r"(.+):(\w+(?:\.\w+)*)", re.DOTALL)
_SAFE = 4  # older versions of datasets run the program that a data set brings


@register_data("hf", place="NAME")
class HubImages(Dataset[Sample]):
    """Images with classes, as the Hub keeps them in Parquet files.

    The split is ``validation``, else ``test``, else the only one, unless the spec ends with ``:SPLIT``. Images
    are turned as their EXIF says, as `datasets` does. A label of -1 or null is unknown.

    Args:
        spec: ``PLACE`` or ``PLACE:SPLIT``. The place is a folder of files ``SPLIT-00000-of-00001.parquet`` or
            ``SPLIT.parquet``, itself or in its folder ``data``; one such file; or, if there is none, a name on the Hub,
            such as ``uoft-cs/cifar10``, which is read with `datasets`. A file has the columns ``image`` or ``img``, a
            struct with the encoded ``bytes``, and ``label``, ``labels`` or ``fine_label``.

    Attributes:
        class_names: The names of the classes; None if the data has none.
        by_class: Whether the samples are sorted by class, so that the first few are not representative.

    Raises:
        DataError: If there is no such place or split, one file of several is missing, a file is damaged, a column is
            missing or of another type, a label has no class, or the Hub cannot be read. A damaged image raises
            ImageError when it is read.
        MissingExtraError: If pyarrow is not installed, or for a name on the Hub, datasets.

    Example:
        >>> import io, tempfile
        >>> import pandas as pd
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (6, 4)).save(file, "PNG")
        >>> rows = {"image": [{"bytes": file.getvalue(), "path": "a.png"}], "label": [7]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pd.DataFrame(rows).to_parquet(f"{folder}/train-00000-of-00001.parquet")
        ...     sample = HubImages(f"{folder}:train")[0]
        >>> sample.name, sample.label, sample.image.shape
        ('train 0', 7, torch.Size([3, 4, 6]))
    """

    def __init__(self, spec: Path | str) -> None:
        place, split = _parts(spec)
        self._data = read_files(place, split) if place.exists() else _from_hub(place, split)
        self.class_names = self._data.classes
        self._labels = _labels(self._data)
        known = [label for label in self._labels if label is not None]
        self.by_class = len(set(known)) > 1 and known == sorted(known)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        cell, place = self._data.cells[checked(index, len(self))], self._data.places[index]
        image = np.array(open_encoded(cell and cell["bytes"], place, upright=True))
        pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        return Sample(pixels, self._labels[index], None, None, f"{self._data.split} {index}")


def _parts(spec: Path | str) -> tuple[Path, str | None]:
    """The place and the split, if one is named."""
    match = _WITH_SPLIT.fullmatch(str(spec))
    if match is None or Path(spec).exists():  # a folder's own name may have a colon
        return Path(spec), None
    return Path(match[1]), match[2]


def _labels(data: LabelledCells) -> list[int | None]:
    given = [None if label == -1 else label for label in data.labels]
    known = [(label, place) for label, place in zip(given, data.places, strict=True) if label is not None]
    classes = None if data.classes is None else len(data.classes)
    labels([label for label, _ in known], [place for _, place in known], classes)
    return given


def _from_hub(place: Path, split: str | None) -> LabelledCells:
    """A data set of the Hub by its name, with `datasets`, which downloads it and keeps it."""
    name = place.as_posix()
    if not _NAME.fullmatch(name):
        raise DataError(f"{name}: there is no such file or folder, and it is no name on the Hub, such as owner/name.")
    datasets = needed(f"There is no file or folder {name} here, and reading it from the Hub", "datasets")
    if int(datasets.__version__.split(".")[0]) < _SAFE:
        raise DataError(f"{name}: datasets {datasets.__version__} may run a data set's own program: update it.")
    try:
        chosen = chosen_split(split, datasets.get_dataset_split_names(name), name)
        table = datasets.load_dataset(name, split=chosen)
    except DataError:
        raise
    except Exception as error:  # of the network, the Hub, the disk or the data, each with types of its own
        raise DataError(f"{name}: cannot be read from the Hub ({str(error)[:300]}).") from error
    image, label = (next((one for one in names if one in table.features), "") for names in (IMAGE, LABEL))
    if not isinstance(table.features.get(image), datasets.Image) or not label:
        raise DataError(
            f"{name}: it needs a column of images, {' or '.join(IMAGE)}, and one of classes, {' or '.join(LABEL)}; "
            f"there is {', '.join(table.features)[:200]}."
        )
    encoded = table.cast_column(image, datasets.Image(decode=False)).select_columns(image)
    places = [f"{name}, {chosen} {row}" for row in range(len(table))]
    classes = getattr(table.features[label], "names", None)
    return LabelledCells(chosen, _Downloaded(encoded, image), table[label][:], places, classes)


class _Downloaded(Sequence[Any]):
    """The column of images of a data set that `datasets` holds; some are files of their own."""

    def __init__(self, table: Any, column: str) -> None:
        self._table, self._column = table, column

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        cell = self._table[index][self._column]
        if cell and cell["bytes"] is None and cell["path"]:
            return {"bytes": read_whole(cell["path"])}
        return cell
