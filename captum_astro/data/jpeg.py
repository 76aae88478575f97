"""The number of scans in a JPEG: a decoder goes through the whole picture for each, however small it is."""

from __future__ import annotations

import re

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # not a stuffed byte, a fill byte or a restart
_END, _SCAN = 0xD9, 0xDA
_BARE = (0x01, 0xD8)  # markers without a segment


def scans(data: bytes) -> int:
    """The scans of the first picture in a file.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (8, 8)).save(file, "JPEG")
        >>> scans(file.getvalue())
        1
    """
    count, place = 0, 2
    while (marker := _MARKER.search(data, place)) is not None and data[marker.end() - 1] != _END:
        kind, place = data[marker.end() - 1], marker.end()
        count += kind == _SCAN
        if kind not in _BARE:
            place += int.from_bytes(data[place : place + 2], "big")
    return count
