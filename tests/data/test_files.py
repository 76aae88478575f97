from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from captum_astro.data import files
from captum_astro.data.files import DataError, read_whole, regular_file


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_fifo, "a device, a FIFO or a socket"),
        (_socket, "a device, a FIFO or a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, a FIFO or a socket"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: path.symlink_to(path), "cannot be opened"),
        (lambda path: None, "there is no such file"),
    ],
)
def test_only_regular_files(make, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = Path("a")
    make(path)
    for read in (regular_file, read_whole):
        with pytest.raises(DataError, match=f"^a: {re.escape(reason)}"):
            read(path)


def test_a_link_to_a_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ab")
    (tmp_path / "b").symlink_to("a")
    assert regular_file(tmp_path / "b") == tmp_path / "b"
    assert read_whole(tmp_path / "b") == b"ab"


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 1 << 20)
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    assert len(read_whole(tmp_path / "a")) == 1 << 20
    os.truncate(tmp_path / "a", (1 << 20) + 1)
    with pytest.raises(DataError, match=r"a: more than 1 MiB"):
        read_whole(tmp_path / "a")
