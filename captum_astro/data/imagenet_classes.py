"""ImageNet's 1000 classes by their WordNet ids."""

from __future__ import annotations

import re
from functools import lru_cache

from captum_astro.data.tables import DataError

WNID = re.compile(r"n\d{8}")


@lru_cache(maxsize=1)
def imagenet_classes() -> dict[str, int]:
    """The number of each class, which is its place among the sorted ids.

    Example:
        >>> imagenet_classes()["n02123045"]  # a tabby
        281
    """
    from timm.data import ImageNetInfo

    return {wnid: index for index, wnid in enumerate(ImageNetInfo().label_names())}


def imagenet_class(wnid: str, place: object) -> int:
    """The number of a class.

    Args:
        wnid: Its id.
        place: Where it was read, for the error.

    Raises:
        DataError: If it is none of the 1000.
    """
    try:
        return imagenet_classes()[wnid]
    except KeyError:
        raise DataError(f"{place}: {wnid} is none of ImageNet's 1000 classes.") from None
