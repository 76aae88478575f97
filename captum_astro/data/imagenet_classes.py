"""ImageNet's 1000 classes by their WordNet ids."""

from __future__ import annotations

import re
from functools import lru_cache

from captum_astro.data.tables import DataError

WNID = re.compile(r"n\d{8}")


@lru_cache(maxsize=1)
def imagenet_classes() -> dict[str, int]:
    """The index of each class, which is its position among the sorted ids.

    Example:
        >>> imagenet_classes()["n02123045"]  # a tabby
        281
    """
    from timm.data import ImageNetInfo

    return {wnid: index for index, wnid in enumerate(ImageNetInfo().label_names())}


def imagenet_class(wnid: str, place: object) -> int:
    """The index of a class.

    Args:
        wnid: Its id.
        place: Where it was read, for the error message.

    Raises:
        DataError: If it is not one of the 1000.
    """
    try:
        return imagenet_classes()[wnid]
    except KeyError:
        raise DataError(f"{place}: {wnid[:40]} is not one of ImageNet's 1000 classes.") from None
