"""The classes of ImageNet's validation images, from the lists that accompany a flat folder of them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from captum_astro.data import _meta_mat
from captum_astro.data.files import DataError, read_whole, regular_file
from captum_astro.data.imagenet_classes import WNID, imagenet_class, imagenet_classes
from captum_astro.extras import needed

META = "meta.mat"
_SECONDS = 300  # to read META
_DIGITS = 9  # of a class number
_STEM = "ILSVRC2012_val_{:08d}"


def listed_classes(places: Sequence[Path]) -> tuple[Path, dict[str, int]]:
    """Read the first list that is found.

    =========================================  ========================================================================
    LOC_val_solution.csv                       Kaggle's: ``ImageId,PredictionString``, the string begins with the wnid
    val.txt                                    one image per line, its name and its class: 0 to 999, or the wnid
    imagenet_2012_validation_synset_labels.txt  the wnids of images 1 to 50000, one per line
    ILSVRC2012_validation_ground_truth.txt     the devkit's: its own numbers, explained by ``meta.mat`` next to it
    =========================================  ========================================================================

    Args:
        places: Folders, in order of preference.

    Returns:
        The list, and the class by the stem of the file name.

    Raises:
        DataError: If there is none, or its format is invalid. The message names the line.
    """
    for name, reader in _FORMS.items():
        for place in places:
            if (place / name).is_file():
                return place / name, reader(place / name, places)
    raise DataError(
        f"{places[0]}: images without folders of their classes, and no list of them ({', '.join(_FORMS)}) "
        f"here or in {', '.join(str(place) for place in places[1:])}."
    )


def _kaggle(file: Path, places: Sequence[Path]) -> dict[str, int]:
    found: dict[str, int] = {}
    reader = csv.DictReader(io.StringIO(_text(file), newline=""))
    try:
        if not {"ImageId", "PredictionString"} <= set(reader.fieldnames or ()):
            raise DataError(f"{file}: line 1: the columns are ImageId,PredictionString.")
        for row in reader:
            wnid = (row["PredictionString"] or "").split(" ")[0]
            found[_stem(row["ImageId"] or "")] = imagenet_class(wnid, f"{file}, line {reader.line_num}")
    except csv.Error as error:
        raise DataError(f"{file}: after line {reader.line_num}: not a CSV ({error}).") from error
    return found


def _pairs(file: Path, places: Sequence[Path]) -> dict[str, int]:
    found: dict[str, int] = {}
    numbers: list[int] = []
    for line, text in _lines(file):
        name, _, given = text.rpartition(" ")
        place = f"{file}, line {line}"
        if not name:
            raise DataError(f"{place}: {text[:60]!r} is not a name and a class.")
        if WNID.fullmatch(given):
            found[_stem(name)] = imagenet_class(given, place)
            continue
        if not given.isdecimal() or len(given) > _DIGITS:
            raise DataError(f"{place}: the class is {given[:20]!r}, not a number or a wnid.")
        numbers.append(int(given))
        found[_stem(name)] = numbers[-1]
    # Kaggle's ImageSets/CLS-LOC/val.txt has the same name and format, but its numbers are those of the images
    if len(numbers) > 1 and numbers == list(range(1, len(numbers) + 1)):
        raise DataError(f"{file}: this numbers the images 1, 2, 3 and says no class; LOC_val_solution.csv does.")
    if numbers and max(numbers) >= len(imagenet_classes()):
        raise DataError(f"{file}: a class is {max(numbers)}; they are numbered 0 to {len(imagenet_classes()) - 1}.")
    return found


def _wnids(file: Path, places: Sequence[Path]) -> dict[str, int]:
    return {_STEM.format(line): imagenet_class(text, f"{file}, line {line}") for line, text in _lines(file)}


def _devkit(file: Path, places: Sequence[Path]) -> dict[str, int]:
    meta = next((place / META for place in (file.parent, *places) if (place / META).is_file()), None)
    if meta is None:
        raise DataError(
            f"{file}: its numbers are the devkit's own, not the classes of any model. Put the devkit's {META} beside "
            f"it, which says what they mean; or use val.txt, or folders named by wnid."
        )
    wnids = _devkit_wnids(meta)
    found: dict[str, int] = {}
    for line, text in _lines(file):
        if not text.isdecimal() or len(text) > _DIGITS or int(text) not in wnids:
            raise DataError(f"{file}, line {line}: {text[:20]!r} is no class of {meta}.")
        found[_STEM.format(line)] = imagenet_class(wnids[int(text)], f"{file}, line {line}")
    return found


def _devkit_wnids(meta: Path) -> dict[int, str]:
    needed(META, "scipy.io")
    command = [sys.executable, "-I", _meta_mat.__file__, json.dumps(sys.path), str(regular_file(meta).absolute())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)
        return dict(json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError) as error:
        last = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().rpartition("\n")[2]
        reason = last or type(error).__name__
        raise DataError(f"{meta}: not the devkit's {META}, or damaged ({reason[:100]}).") from error


def _lines(file: Path) -> list[tuple[int, str]]:
    """The non-empty lines, each with its number from 1."""
    lines = [(number, " ".join(line.split())) for number, line in enumerate(_text(file).splitlines(), start=1)]
    return [(number, line) for number, line in lines if line]


def _text(file: Path) -> str:
    try:
        return read_whole(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text in UTF-8 ({error.reason} at byte {error.start}).") from error


def _stem(name: str) -> str:
    """``ILSVRC2012_val_00000001`` from a name with or without suffix and folders."""
    return Path(name).stem


_FORMS: dict[str, Callable[[Path, Sequence[Path]], dict[str, int]]] = {
    "LOC_val_solution.csv": _kaggle,
    "val.txt": _pairs,
    "imagenet_2012_validation_synset_labels.txt": _wnids,
    "ILSVRC2012_validation_ground_truth.txt": _devkit,
}
