"""Folders of images with folders of masks: VOC, ImageNet-S and plain ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from captum_astro.data.imagenet import files_of_classes
from captum_astro.data.imagenet_classes import imagenet_class
from captum_astro.data.images import image_names, read_pixels
from captum_astro.data.masks import imagenet_s_mask, plain_mask, voc_mask
from captum_astro.data.registry import register_data
from captum_astro.data.samples import Sample, checked
from captum_astro.data.tables import DataError

_VOC_LIST = "ImageSets/Segmentation/val.txt"


class _Entry(NamedTuple):
    name: str
    image: str
    mask: str
    label: int | None


@register_data("masks")
class MaskFolder(Dataset[Sample]):
    """Images with masks, in a layout that is recognised by the sub-folders.

    ==========  ======================================================================================================
    VOC         ``JPEGImages/*.jpg``, ``SegmentationClass/*.png`` and ``ImageSets/Segmentation/val.txt``; without that
                list all masks. The object is any of VOC's classes, and so no label is given
    ImageNet-S  ``validation/n01440764/*.JPEG`` and ``validation-segmentation/n01440764/*.png``. The object is any of
                its classes; the label is ImageNet's, by the folder
    plain       ``images/*`` and ``masks/*`` of the same stem: black and white, or with a palette as VOC's
    ==========  ======================================================================================================

    For the pixel values see `voc_mask`, `imagenet_s_mask` and `plain_mask`. In the first two layouts images are used as
    stored; in the plain layout EXIF rotation is applied, as in programs that masks are drawn with.

    Args:
        folder: The folder that contains the sub-folders above.

    Attributes:
        by_class: Whether the samples are sorted by class, so that the first few are not representative.

    Raises:
        DataError: If the folder has none of the layouts, or the image or mask that belongs to another file is missing;
            at a sample, if its two sizes differ. A damaged file raises ImageError when it is read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for inside in ("images", "masks"):
        ...         Path(folder, inside).mkdir()
        ...     Image.new("RGB", (6, 4)).save(f"{folder}/images/a.jpg")
        ...     Image.new("L", (6, 4), 255).save(f"{folder}/masks/a.png")
        ...     sample = MaskFolder(folder)[0]
        >>> sample.name, sample.mask.shape, sample.mask.unique().tolist()
        ('a.jpg', torch.Size([4, 6]), [1])
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise DataError(f"{folder}: there is no such folder.")
        forms = [form for form in _FORMS if all((self._folder / inside).is_dir() for inside in form.folders)]
        if not forms:
            looked = "; ".join(f"{form.name}: {' and '.join(form.folders)}" for form in _FORMS)
            raise DataError(f"{folder}: none of the forms with masks ({looked}).")
        self._form = forms[0]
        self._entries = self._form.entries(self._folder)
        if not self._entries:
            raise DataError(f"{self._folder / self._form.folders[1]}: no masks here.")
        self.by_class = self._entries[0].label is not None

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[checked(index, len(self))]
        image = read_pixels(self._folder / entry.image, upright=self._form.upright)
        mask = self._form.read(self._folder / entry.mask)
        if mask.shape != image.shape[1:]:
            raise DataError(
                f"{self._folder / entry.mask}: {mask.shape[1]} x {mask.shape[0]} pixels, and its image has "
                f"{image.shape[2]} x {image.shape[1]}."
            )
        return Sample(image, entry.label, mask, None, entry.name)


def _voc(folder: Path) -> list[_Entry]:
    images, masks = (_by_stem(folder / inside) for inside in _VOC.folders)
    listed = folder / _VOC_LIST
    stems = listed.read_text().split() if listed.is_file() else sorted(masks)
    return [_entry(folder, _VOC.folders, "", stem, images, masks) for stem in stems]


def _imagenet_s(folder: Path) -> list[_Entry]:
    found = []
    for wnid in files_of_classes(folder / _IMAGENET_S.folders[1]):
        masks = _by_stem(folder / _IMAGENET_S.folders[1] / wnid)
        images = _by_stem(folder / _IMAGENET_S.folders[0] / wnid)
        label = imagenet_class(wnid, folder)
        found += [_entry(folder, _IMAGENET_S.folders, f"{wnid}/", stem, images, masks, label) for stem in sorted(masks)]
    return found


def _plain(folder: Path) -> list[_Entry]:
    images, masks = (_by_stem(folder / inside) for inside in _PLAIN.folders)
    return [_entry(folder, _PLAIN.folders, "", stem, images, masks) for stem in sorted({*images, *masks})]


def _entry(
    folder: Path,
    folders: tuple[str, str],
    inside: str,
    stem: str,
    images: dict[str, str],
    masks: dict[str, str],
    label: int | None = None,
) -> _Entry:
    for names, place in ((images, folders[0]), (masks, folders[1])):
        if stem not in names:
            raise DataError(
                f"{folder / place / inside}: no file {stem}.* here, though it is listed or has its partner."
            )
    image, mask = (f"{place}/{inside}{names[stem]}" for names, place in ((images, folders[0]), (masks, folders[1])))
    return _Entry(inside + images[stem], image, mask, label)


def _by_stem(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in image_names(folder) if folder.is_dir() else []:
        other = found.setdefault(Path(name).stem, name)
        if other != name:
            raise DataError(f"{folder}: {other} and {name} have one stem: which is it?")
    return found


class _Form(NamedTuple):
    name: str
    folders: tuple[str, str]
    entries: Callable[[Path], list[_Entry]]
    read: Callable[[Path], torch.Tensor]
    upright: bool


_VOC = _Form("VOC", ("JPEGImages", "SegmentationClass"), _voc, voc_mask, False)
_IMAGENET_S = _Form("ImageNet-S", ("validation", "validation-segmentation"), _imagenet_s, imagenet_s_mask, False)
_PLAIN = _Form("plain", ("images", "masks"), _plain, plain_mask, True)
_FORMS = (_VOC, _IMAGENET_S, _PLAIN)
