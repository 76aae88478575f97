"""What comes in: uploaded images, and the files of the app's folder."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from captum_astro.app.settings import Settings
from captum_astro.data.image_error import ImageError
from captum_astro.data.images import image_names, open_encoded

WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_LONGEST = 200  # characters of a name


class Upload(NamedTuple):
    """An image file as it came: its name, without a folder, and its bytes."""

    name: str
    data: bytes


def receive(path: Path, own: Path, settings: Settings) -> Upload:
    """Take an uploaded file into memory and remove it from the disk, so that nobody else can ask for it.

    Args:
        path: The file.
        own: The folder of uploads. Nothing outside it is read.
        settings: The largest size, in bytes and in pixels.

    Raises:
        ValueError: If it lies outside, or has a name that no program should be given.
        ImageError: If it is too large, or no image.
    """
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        raise ValueError("The upload did not arrive. Drop the image again.") from None
    if own.resolve() not in path.resolve().parents or not stat.S_ISREG(mode):
        raise ValueError(f"{path.name}: this file was not uploaded. Drop it on the page.")
    try:
        upload = _read(path, checked_name(path.name), settings)
    finally:
        path.unlink()
    opened(upload, settings)
    return upload


def checked_name(name: str) -> str:
    """The name of a file, if it is one that can be shown and given to a shell.

    Raises:
        ValueError: If it is empty, hidden or too long, or has characters that do not print or separate folders.

    Example:
        >>> checked_name("my cat.png")
        'my cat.png'
        >>> checked_name("../cat.png")
        Traceback (most recent call last):
            ...
        ValueError: '../cat.png' is no name for an image: rename the file, with letters, digits, dots and spaces.
    """
    plain = name.isprintable() and not set(name) & set("/\\") and 0 < len(name) <= _LONGEST
    if not plain or name.startswith("."):
        shown = ascii(name if len(name) <= _LONGEST else f"{name[:20]}...")
        raise ValueError(f"{shown} is no name for an image: rename the file, with letters, digits, dots and spaces.")
    return name


def opened(upload: Upload, settings: Settings) -> Image.Image:
    """The image of an uploaded file, upright and in RGB.

    Raises:
        ImageError: If it is no image, damaged, or has too many pixels.
    """
    return open_encoded(upload.data, upload.name, settings.pixels, upright=True)


def files_of(folder: Path | None) -> tuple[list[str], list[str]]:
    """The names of the images in a folder, and of the weights files."""
    if folder is None:
        return [], []
    weights = [path.name for path in folder.iterdir() if path.suffix.lower() in WEIGHTS and path.is_file()]
    return image_names(folder), sorted(weights)


def from_folder(name: str, settings: Settings) -> Upload:
    """An image of the app's folder.

    Raises:
        ValueError: As `inside`.
        ImageError: If it is too large.
    """
    return _read(inside(name, settings.folder), name, settings)


def inside(name: str, folder: Path | None) -> Path:
    """The regular file of this name in the app's folder, or in a folder inside it.

    Raises:
        ValueError: If there is none, or it lies outside, by its name or by a link.
    """
    if folder is None:
        raise ValueError(f"{name!r} is not among the images: drop it on the page, or start the app with a folder.")
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        found = root in path.parents and path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise ValueError(f"{name!r} is no file of the app's folder. Choose one of the list.")
    return path


def _read(path: Path, name: str, settings: Settings) -> Upload:
    if path.stat().st_size > settings.upload:
        raise ImageError(f"{name}: more than {settings.upload / 2**20:.0f} MiB. Save the image smaller.")
    return Upload(name, path.read_bytes())
