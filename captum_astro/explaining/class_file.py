"""A file with the names of a model's classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captum_astro.data.files import DataError, read_whole

_FORMS = 'a list of names, or an object of indices and names such as {"0": "cat", "1": "dog"}'


def read_class_names(file: Path | str) -> list[str]:
    r"""The names of a model's classes, in the order of their indices.

    Args:
        file: Text with one name a line, of which the first is that of class 0; or, if its name ends in ``.json``, a
            list of names, or an object of indices and names in either direction, as Hugging Face's ``id2label`` and
            torchvision's ``class_to_idx``. A name may be several, with commas, as ImageNet's are.

    Raises:
        DataError: If the file cannot be read, a name is empty, or an index is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "names.txt").write_text("cat\ndog\n")
        ...     _ = Path(folder, "names.json").write_text('{"dog": 1, "cat": 0}')
        ...     read_class_names(Path(folder, "names.txt")), read_class_names(Path(folder, "names.json"))
        (['cat', 'dog'], ['cat', 'dog'])
    """
    file = Path(file)
    try:
        text = read_whole(file).decode("utf-8-sig")
        names = _of_json(file, json.loads(text)) if file.suffix.lower() == ".json" else text.rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: this is not text in UTF-8.") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{file}: this is not JSON ({error}); it must be {_FORMS}.") from error
    names = [name.strip() for name in names]
    if "" in names or not names:
        raise DataError(f"{file}: class {names.index('') if names else 0} has no name.")
    return names


def _of_json(file: Path, found: Any) -> list[str]:
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        return found
    if isinstance(found, Mapping) and found:
        order = [str(index) for index in range(len(found))]
        if all(isinstance(index, int) for index in found.values()):
            found = {index: name for name, index in found.items()}
        names = {str(index): name for index, name in found.items() if isinstance(name, str)}
        if names.keys() == set(order):
            return [names[index] for index in order]
        if missing := [index for index in order if index not in names]:
            raise DataError(f"{file}: class {missing[0]} has no name; it must be {_FORMS}, with every index from 0.")
    raise DataError(f"{file}: it must be {_FORMS}.")
