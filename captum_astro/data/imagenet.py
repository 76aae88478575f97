"""ImageNet's validation images, in class folders or in one folder with a list."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Dataset

from captum_astro.data.imagenet_classes import WNID, imagenet_class
from captum_astro.data.imagenet_lists import listed_classes
from captum_astro.data.images import image_names, read_pixels
from captum_astro.data.registry import register_data
from captum_astro.data.samples import Sample, checked
from captum_astro.data.tables import DataError

_INSIDE = ("", "val", "validation", "ILSVRC/Data/CLS-LOC/val")
_LISTS = ("", "data", "devkit/data", "ILSVRC2012_devkit_t12/data")


@register_data("imagenet")
class ImageNetValidation(Dataset[Sample]):
    """ImageNet's validation set in its common folder layouts.

    Either sub-folders named by WordNet ids, ``n01440764`` and so on, of which some may be missing: a class keeps its
    index among the 1000. Samples come in torchvision's order, by folder and then by file. Or all images in one folder
    with a list of their classes, see `listed_classes`; samples come in the order of the file names, and images that are
    not listed are skipped. Pixels are used as stored: EXIF rotation is not applied, as in torchvision and timm.

    Args:
        folder: The images' folder, or its parent: ``val``, ``validation`` and Kaggle's ``ILSVRC/Data/CLS-LOC/val`` are
            searched. A list may be in it, next to it or in a parent folder, and the devkit's in
            ``ILSVRC2012_devkit_t12/data``.

    Attributes:
        by_class: Whether the samples are sorted by class, so that the first few are not representative.

    Raises:
        DataError: If there are no such images or no list of their classes, or a folder or a line has an unknown class.
            A damaged image raises ImageError when it is read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     inside = Path(folder, "n02123045")
        ...     inside.mkdir()
        ...     Image.new("RGB", (6, 4)).save(inside / "ILSVRC2012_val_00000007.JPEG")
        ...     sample = ImageNetValidation(folder)[0]
        >>> sample.name, sample.label
        ('n02123045/ILSVRC2012_val_00000007.JPEG', 281)
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder.")
        self._root, found = _images(folder)
        self.by_class = isinstance(found, dict)
        self._samples: list[tuple[str, int]]
        if isinstance(found, dict):
            self._samples = [
                (f"{wnid}/{name}", imagenet_class(wnid, self._root)) for wnid in found for name in found[wnid]
            ]
            return
        places = [place / inside for place in (self._root, folder, self._root.parent) for inside in _LISTS]
        file, classes = listed_classes(list(dict.fromkeys(place for place in places if place.is_dir())))
        self._samples = [(name, classes[Path(name).stem]) for name in found if Path(name).stem in classes]
        if not self._samples:
            raise DataError(f"{file}: of the {len(found)} images in {self._root} it lists none.")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        name, label = self._samples[checked(index, len(self))]
        return Sample(read_pixels(self._root / name, upright=False), label, None, None, name)


def files_of_classes(folder: Path) -> dict[str, list[str]]:
    """The images in each sub-folder that is named by a WordNet id, both in order of name.

    Raises:
        DataError: If a sub-folder's id is not a known class.
    """
    wnids = sorted(inside.name for inside in folder.iterdir() if WNID.fullmatch(inside.name) and inside.is_dir())
    for wnid in wnids:
        imagenet_class(wnid, folder)
    return {wnid: image_names(folder / wnid) for wnid in wnids}


def _images(folder: Path) -> tuple[Path, dict[str, list[str]] | list[str]]:
    """Where the images are, and their names: by class, or all of them."""
    for place in (folder / inside for inside in _INSIDE):
        if place.is_dir():
            found = files_of_classes(place)
            if any(found.values()):
                return place, found
            names = image_names(place)
            if names:
                return place, names
    raise DataError(
        f"{folder}: neither folders named by WordNet ids (n01440764) with images in them, nor images; looked here and "
        f"in {', '.join(_INSIDE[1:])}."
    )
