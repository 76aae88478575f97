from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from captum_astro import storage
from captum_astro.storage import (
    RECORD,
    begin,
    differences,
    read_record,
    weights_digest,
    write_table,
    write_whole,
)


def test_writes_are_atomic(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_whole(file, lambda part: part.write_text("one"))

    def fails(part: Path) -> None:
        part.write_text("tw")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'") as caught:
        write_whole(file, fails)
    assert caught.value.errno == errno.ENOSPC
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("a.txt", "one")]
    with pytest.raises(OSError, match="part"):
        write_whole(file / "b.txt", lambda part: part.write_text("x"))


def test_file_and_folder_are_flushed_around_the_rename(tmp_path: Path, monkeypatch) -> None:
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("replace"), replace(*names)))
    write_whole(tmp_path / "a", lambda part: part.write_text("x"))
    assert events == ["sync", "replace", "sync"]


def test_a_prepared_name_is_never_followed(tmp_path: Path, monkeypatch) -> None:
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("keep")
    monkeypatch.setattr(storage.secrets, "token_hex", lambda size: "0" * 2 * size)
    (tmp_path / f".{'0' * 16}{storage.PART}").symlink_to(theirs)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", lambda part: part.write_text("x"))
    assert theirs.read_text() == "keep"
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs links, pipes and devices")
@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "device"])
def test_only_a_regular_file_is_replaced(tmp_path: Path, kind: str) -> None:
    file, theirs = tmp_path / "a", tmp_path / "theirs"
    theirs.write_text("keep")
    if kind == "link":
        file.symlink_to(theirs)
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file = Path("/dev/null")
    before = os.lstat(file).st_mode
    with pytest.raises(OSError, match=rf"{file} is a {kind}, .* Choose another name"):
        write_whole(file, lambda part: part.write_text("x"))
    assert os.lstat(file).st_mode == before
    assert theirs.read_text() == "keep"


@pytest.mark.skipif(os.name != "posix", reason="needs a umask")
def test_files_are_open_to_others_as_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", lambda part: part.write_text("x"))
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "a").st_mode & 0o777 == 0o640


def test_cells_of_a_table_are_no_formulas(tmp_path: Path) -> None:
    names = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "-", "a=1", ""]
    write_table(tmp_path / "a.csv", pd.DataFrame({"name": names, "value": [-float(i) for i in range(len(names))]}))
    with (tmp_path / "a.csv").open(newline="") as lines:
        read = list(csv.DictReader(lines))
    assert [row["name"] for row in read] == [f"'{name}" for name in names[:8]] + ["-", "a=1", ""]
    assert [float(row["value"]) for row in read] == [-float(i) for i in range(len(names))]


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", "[" * 100_000, "9" * 5000, b"\xff\xfe", " " * (16 * 2**20 + 1)]
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / RECORD).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"run\.json is damaged. Choose another folder"):
        begin(tmp_path, {"steps": 1})


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
def test_a_pipe_in_place_of_the_record_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / RECORD)
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        begin(tmp_path, {"steps": 1})


def test_old_leftovers_are_removed(tmp_path: Path) -> None:
    names = [f".0{storage.PART}", f".1{storage.PART}", ".film.mp4.part"]
    for name in names:
        (tmp_path / name).write_text("half")
    for name in names[1:]:
        os.utime(tmp_path / name, (0, 0))
    begin(tmp_path, {"steps": 1})
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([names[0], names[2], RECORD])


@pytest.mark.parametrize("links", [True, False])
def test_one_of_two_that_begin_together_wins(tmp_path: Path, monkeypatch, links: bool) -> None:
    link = os.link

    def slow(part: Path, file: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        begin(tmp_path, {"steps": 2})  # another process, meanwhile
        if not links:
            raise PermissionError("no hard links here")
        link(part, file)

    monkeypatch.setattr(os, "link", slow)
    with pytest.raises(ValueError, match=r"another run \(steps differ\)"):
        begin(tmp_path, {"steps": 1})
    assert read_record(tmp_path / RECORD) == {"steps": 2}
    assert [file.name for file in tmp_path.iterdir()] == [RECORD]


def test_record_belongs_to_one_run(tmp_path: Path) -> None:
    described = {"steps": 20, "methods": ("a", "b"), "versions": {"torch": "2.6"}}
    begin(tmp_path / "deep" / "run", described)
    begin(tmp_path / "deep" / "run", described)
    assert read_record(tmp_path / "deep" / "run" / "run.json")["methods"] == ["a", "b"]
    changed = {"methods": ("a",), "versions": {"torch": "2.7", "timm": "1"}, "more": None}
    assert differences(described, changed) == ["methods", "more", "steps", "versions.timm", "versions.torch"]
    with pytest.raises(ValueError, match=r"another run \(methods, more, steps, versions.timm, versions.torch differ"):
        begin(tmp_path / "deep" / "run", changed)
    begin(tmp_path / "deep" / "run", {**described, "steps": 21}, free=["steps"])


def test_the_digest_is_of_names_and_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).bfloat16()
    before = weights_digest(model)
    assert weights_digest(model) == before
    model[1].running_mean += 1
    assert weights_digest(model) != before
    assert weights_digest(nn.Identity()) != before
