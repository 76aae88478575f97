from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from captum_astro.storage import begin, differences, read_record, weights_digest, write_whole


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


def test_record_belongs_to_one_run(tmp_path: Path) -> None:
    described = {"steps": 20, "methods": ("a", "b"), "versions": {"torch": "2.6"}}
    begin(tmp_path / "deep" / "run", described)
    begin(tmp_path / "deep" / "run", described)
    assert read_record(tmp_path / "deep" / "run" / "run.json")["methods"] == ["a", "b"]
    changed = {"methods": ("a",), "versions": {"torch": "2.7", "timm": "1"}, "more": None}
    assert differences(described, changed) == ["methods", "more", "steps", "versions.timm", "versions.torch"]
    with pytest.raises(ValueError, match=r"another run \(methods, more, steps, versions.timm, versions.torch differ"):
        begin(tmp_path / "deep" / "run", changed)


def test_the_digest_is_of_names_and_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).bfloat16()
    before = weights_digest(model)
    assert weights_digest(model) == before
    model[1].running_mean += 1
    assert weights_digest(model) != before
    assert weights_digest(nn.Identity()) != before
