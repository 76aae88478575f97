"""Labelled texts (IMDB) from parquet files, and WikiText-2 from plain text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from captum_astro.data.files import DataError, read_whole
from captum_astro.data.tables import labels, parquet_files, read_columns

Split = Literal["train", "test"]
WikiSplit = Literal["train", "valid", "test"]
END_OF_LINE = "<eos>"
UNKNOWN = "<unk>"


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and classes in memory, each ``N`` long."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.labels)


def read_imdb(path: Path | str, split: Split) -> LabelledTexts:
    """The reviews of a split; 0 is negative, 1 positive.

    Args:
        path: A folder of parquet files, or the training one of them: columns ``text`` and ``label``.
        split: ``"train"`` or ``"test"``.

    Raises:
        DataError: If there is no such file, or it is damaged, or a row has no text or no class.
    """
    values, places = read_columns(
        parquet_files(Path(path), split, "imdb"), {"text": ("text", "review", "sentence"), "label": ("label",)}
    )
    for text, place in zip(values["text"], places, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{place}: there is no text.")
    return LabelledTexts(values["text"], labels(values["label"], places, 2))


def read_wikitext(path: Path | str) -> dict[WikiSplit, str]:
    """The available parts of WikiText-2, as published: words separated by spaces.

    Args:
        path: A folder with ``wiki.train.tokens``, ``wiki.valid.tokens`` and ``wiki.test.tokens``, or with text files
            that have ``train``, ``valid`` and ``test`` in their names, such as ``wikitext2_valid.txt``.

    Returns:
        Training text if available, validation and test text. Lines end with a newline.

    Raises:
        DataError: If validation or test text is missing, or a file is empty or not UTF-8.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder.")
    found: dict[WikiSplit, str] = {}
    splits: tuple[WikiSplit, ...] = ("train", "valid", "test")
    for split in splits:
        files = sorted(
            {*path.glob(f"wiki*{split}*.tokens"), *path.glob(f"wiki*{split}*.txt"), *path.glob(f"wiki*{split}*.raw")}
        )
        if not files:
            continue
        try:
            text = read_whole(files[0]).decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{files[0]}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
        if not text.strip():
            raise DataError(f"{files[0]}: the file is empty.")
        found[split] = text
    for split in splits[1:]:
        if split not in found:
            raise DataError(f"{path}: no {split} text, such as wiki.{split}.tokens or wikitext2_{split}.txt.")
    return found


def count_words(text: str) -> int:
    r"""Count words between spaces and line ends, as in WikiText-2 perplexities; an empty line counts as one.

    Example:
        >>> count_words(" = Title = \n \n")
        5
    """
    return len(text.split()) + text.count("\n")
