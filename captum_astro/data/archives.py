"""Members of zip archives in memory: nothing is written to disk, and no more is unpacked than a sample can need."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

from captum_astro.data.files import LARGEST_ARRAY

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, struct.error, ValueError, OverflowError)


def open_zip(source: Path | bytes) -> zipfile.ZipFile:
    """Open an archive.

    Raises:
        ValueError: If it is not one, or its table of contents, which is at its end, is damaged or missing.
    """
    try:
        return zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except _DAMAGE as error:
        raise ValueError("not a .zip file, or cut short (its table of contents is at its end)") from error


def zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The unpacked bytes of a member.

    Raises:
        ValueError: If it is damaged, encrypted or larger than a sample.
    """
    if member.file_size > LARGEST_ARRAY:
        raise ValueError(f"{member.file_size} bytes when unpacked, more than {LARGEST_ARRAY >> 20} MiB")
    try:
        return archive.read(member)
    except _DAMAGE as error:
        raise ValueError(f"damaged in the .zip ({str(error)[:100]})") from error
