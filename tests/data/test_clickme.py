from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from captum_astro.data.clickme import ClickMe
from captum_astro.data.human import prepare_heatmap
from captum_astro.data.tfrecord import CorruptRecordError
from tests.data.test_tfrecord import make_example, write_records

pytestmark = pytest.mark.filterwarnings("ignore:Skipped")

SIDE = 16


def pixels(i: int) -> np.ndarray:
    random = np.random.default_rng(i)
    smooth = Image.fromarray(random.integers(0, 256, (3, 3, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    return np.asarray(smooth)


def heat(i: int) -> np.ndarray:
    return pixels(i + 1000)[..., 0] / np.float32(255)


def encoded(array: np.ndarray, form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **({"quality": 98, "subsampling": 0} if form == "JPEG" else {}))
    return file.getvalue()


def harmonization(i: int) -> bytes:
    grey = (heat(i) * 255).round().astype(np.uint8)
    return make_example({"image": [encoded(pixels(i))], "heatmap": [encoded(grey)], "label": [i]})


def clickme_1(i: int) -> bytes:
    image, heatmap = pixels(i).astype("<f4").tobytes(), (5 * heat(i)[..., None]).astype("<f4").tobytes()
    named = {"image": [image], "heatmap": [heatmap], "label": [i], "click_count": [9], "file_path": [b"n01/x.JPEG"]}
    return make_example(named, packed=False)


def npz(i: int) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, image=pixels(i), heatmap=heat(i).astype(np.float64), label=np.int64(i), clicks=12)
    return file.getvalue()


def pth(i: int) -> bytes:
    file = io.BytesIO()
    image = torch.from_numpy(pixels(i).transpose(2, 0, 1).copy())
    grey = torch.from_numpy((heat(i) * 255).round().astype(np.uint8))[None]
    torch.save({"image": image, "heatmap": grey, "label": torch.tensor([i], dtype=torch.int32)}, file)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def members(i: int) -> dict[str, bytes]:
    return {"jpg": encoded(pixels(i)), "cls": str(i).encode(), "heatmap.npy": npy(heat(i)[..., None]), "json": b"{}"}


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> list[int]:
    """The byte offset of each member."""
    with tarfile.open(path, "w") as archive:
        for key, parts in samples.items():
            for extension, data in parts.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as archive:
        return [member.offset for member in archive]


def write_zip(path: Path, named: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in named.items():
            archive.writestr(name, data)


def tar_shards(folder: Path) -> list[str]:
    for shard in range(3):
        write_tar(
            folder / f"clickme-val-{shard:06d}.tar", {f"./{i:04d}": members(i) for i in range(4 * shard, 4 * shard + 4)}
        )
    return [f"clickme-val-{i // 4:06d}.tar:{i:04d}" for i in range(12)]


def tfrecord_shards(content: Callable[[int], bytes]) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        for shard in range(3):
            write_records(folder / f"val-{shard}.tfrecords", map(content, range(4 * shard, 4 * shard + 4)))
        return [f"val-{i // 4}.tfrecords:{i % 4}" for i in range(12)]

    return write


def single_files(content: Callable[[int], bytes], suffix: str) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        for i in reversed(range(12)):
            (folder / f"{i:04d}{suffix}").write_bytes(content(i))
        (folder / "metadata.json").write_text("{}")
        (folder / "targets.pkl").write_bytes(b"\x80")
        return [f"{i:04d}{suffix}" for i in range(12)]

    return write


def zipped(folder: Path) -> list[str]:
    named = {f"clickme_val/{i:04d}.npz": npz(i) for i in reversed(range(12))}
    write_zip(folder / "clickme_val.zip", {"clickme_val/": b"", **named, "__MACOSX/clickme_val/._0000.npz": b"x"})
    return [f"clickme_val.zip:clickme_val/{i:04d}.npz" for i in range(12)]


FORMS = {
    "harmonization": (tfrecord_shards(harmonization), 8, 0.02, 1.0),
    "clickme 1.0": (tfrecord_shards(clickme_1), 0, 1e-6, 5.0),
    "npz": (single_files(npz, ".npz"), 0, 0, 1.0),
    "zip": (zipped, 0, 0, 1.0),
    "pth": (single_files(pth, ".pth"), 0, 1e-6, 1.0),
    "webdataset": (tar_shards, 8, 0, 1.0),
}


@pytest.mark.parametrize("form", FORMS)
def test_reads_what_was_written(form: str, tmp_path: Path) -> None:
    write, off, human_off, scale = FORMS[form]
    names = write(tmp_path)
    data = ClickMe(tmp_path)
    for _ in range(2):
        samples = list(data)
        assert [s.name for s in samples] == names
        assert [s.label for s in samples] == list(range(12))
        assert data.skipped == []
    for i, sample in enumerate(samples):
        assert sample.image.dtype == torch.uint8
        assert sample.image.shape == (3, SIDE, SIDE)
        assert sample.human.dtype == torch.float32
        image, human = torch.from_numpy(pixels(i).copy()).permute(2, 0, 1), torch.from_numpy(heat(i))
        assert (sample.image.int() - image.int()).abs().max() <= off
        assert (sample.human - scale * human).abs().max() <= human_off
    assert prepare_heatmap(samples[0].human).shape == (224, 224)
    first = sorted(p for p in tmp_path.iterdir() if p.suffix not in (".json", ".pkl"))[0]
    assert next(iter(ClickMe(first))).name == names[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [2, 5])
def test_parts_of_workers(form: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = FORMS[form][0](tmp_path)
    found = []
    for worker in range(workers):
        _become(monkeypatch, worker, workers)
        found.append([s.name for s in ClickMe(tmp_path)])
    assert sorted(name for part in found for name in part) == names
    assert all(part == sorted(part) and part for part in found)


@pytest.mark.parametrize("form", ["harmonization", "zip"])
def test_data_loader_loses_and_repeats_nothing(form: str, tmp_path: Path) -> None:
    names = FORMS[form][0](tmp_path)
    loader = DataLoader(ClickMe(tmp_path), batch_size=None, num_workers=2)
    assert sorted(s.name for s in loader) == names
    batches = list(DataLoader(ClickMe(tmp_path), batch_size=5))
    assert [tuple(b.human.shape) for b in batches] == [(5, SIDE, SIDE), (5, SIDE, SIDE), (2, SIDE, SIDE)]


def test_an_error_crosses_from_a_worker(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(CorruptRecordError, match=r"a\.npz: not an \.npz file"):
        list(DataLoader(ClickMe(tmp_path), batch_size=None, num_workers=1))


def _become(monkeypatch: pytest.MonkeyPatch, worker: int, workers: int) -> None:
    class Info:
        id, num_workers = worker, workers

    monkeypatch.setattr("captum_astro.data.clickme.get_worker_info", Info)


def _skipping(path: Path, count: int) -> tuple[list[str], list[tuple[str, str]]]:
    data = ClickMe(path, on_corrupt="skip")
    with pytest.warns(UserWarning, match="Skipped") as raised:
        names = [s.name for s in data]
    assert len(raised) == len(data.skipped) == count
    return names, data.skipped


def test_damaged_tfrecord(tmp_path: Path) -> None:
    names = tfrecord_shards(harmonization)(tmp_path)
    path = tmp_path / "val-1.tfrecords"
    data = bytearray(path.read_bytes())
    second = 16 + int.from_bytes(data[:8], "little")
    data[second + 100] ^= 1
    path.write_bytes(data)
    stream = iter(ClickMe(tmp_path))
    assert [next(stream).name for _ in range(5)] == names[:5]
    with pytest.raises(CorruptRecordError, match=rf"val-1\.tfrecords:1: byte {second}: the data do not match"):
        next(stream)
    kept, skipped = _skipping(tmp_path, 1)
    assert kept == names[:5] + names[6:]
    assert skipped == [("val-1.tfrecords:1", f"byte {second}: the data do not match their checksum")]
    data[second] ^= 1
    path.write_bytes(data)
    kept, skipped = _skipping(tmp_path, 1)
    assert kept == names[:5] + names[8:]
    assert "the length does not match" in skipped[0][1]
    path.write_bytes(data[: second - 3])
    kept, skipped = _skipping(tmp_path, 1)
    assert kept == names[:4] + names[8:]
    assert skipped[0][0] == "val-1.tfrecords:0"
    assert skipped[0][1].startswith("byte 0: cut short")
    path.write_bytes(b"")
    assert _skipping(tmp_path, 1)[1] == [("val-1.tfrecords", "the file is empty")]


def test_bad_examples(tmp_path: Path) -> None:
    good = harmonization(0)
    image, grey = encoded(pixels(0)), encoded(pixels(0)[..., 0])
    bad = {
        "no heatmap in it; there is image, label": make_example({"image": [image], "label": [0]}),
        "no image and no heatmap in it; there is nothing": b"",
        "image is not one string of bytes": make_example({"image": [1], "heatmap": [grey]}),
        "a picture of 100 bytes: the image is damaged": make_example({"image": [image[:100]], "heatmap": [grey]}),
        "bytes are not a JPEG or PNG": make_example({"image": [image[1:]], "heatmap": [grey]}),
        "label is [3, 4]": make_example({"image": [image], "heatmap": [grey], "label": [3, 4]}),
        "label is [-1]": make_example({"image": [image], "heatmap": [grey], "label": [-1]}),
        "field 1 is cut short": good[:-5],
    }
    write_records(tmp_path / "a.tfrecord", [*bad.values(), good, make_example({"image": [image], "heatmap": [grey]})])
    kept, skipped = _skipping(tmp_path / "a.tfrecord", len(bad))
    assert kept == [f"a.tfrecord:{len(bad)}", f"a.tfrecord:{len(bad) + 1}"]
    assert list(ClickMe(tmp_path, "skip"))[-1].label is None
    offset = 0
    for (reason, payload), (_, found) in zip(bad.items(), skipped, strict=True):
        assert found.startswith(f"byte {offset}: ")
        assert reason in found
        offset += 16 + len(payload)


def test_streams(tmp_path: Path) -> None:
    for name, size in (("a.tfrecords", 1 << 34), ("b.tar", 1 << 34)):
        path = tmp_path / name
        if name.endswith("tar"):
            write_tar(path, {"0": members(0)})
        else:
            write_records(path, [harmonization(0)])
        with open(path, "r+b") as file:
            file.truncate(size)
        assert next(iter(ClickMe(path))).label == 0


def test_damaged_npz_and_zip(tmp_path: Path) -> None:
    whole = npz(0)
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    objects, without = io.BytesIO(), io.BytesIO()
    np.savez(objects, image=pixels(0), heatmap=np.array([{}], dtype=object))
    np.savez(without, image=pixels(0), label=3)
    named = {
        "0.npz": (whole, ""),
        "1.npz": (whole[: len(whole) // 2], "not an .npz file, or cut short"),
        "2.npz": (bytes(flipped), "damaged"),
        "3.npz": (objects.getvalue(), "allow_pickle=False"),
        "4.npz": (without.getvalue(), "no heatmap in it; there is image, label"),
        "5.npz": (b"", "not an .npz file, or cut short"),
        "6.npz": (npy(heat(0)), "not an .npz file, or cut short"),
    }
    (tmp_path / "files").mkdir()
    for name, (data, _) in named.items():
        (tmp_path / "files" / name).write_bytes(data)
    write_zip(tmp_path / "all.zip", {name: data for name, (data, _) in named.items()})
    for path, prefix in ((tmp_path / "files", ""), (tmp_path / "all.zip", "all.zip:")):
        kept, skipped = _skipping(path, 6)
        assert kept == [prefix + "0.npz"]
        for (name, (_, reason)), (where, found) in zip(list(named.items())[1:], skipped, strict=True):
            assert where == prefix + name
            assert reason in found
    data = bytearray((tmp_path / "all.zip").read_bytes())
    data[60] ^= 0xFF
    (tmp_path / "all.zip").write_bytes(data)
    with pytest.raises(CorruptRecordError, match=r"all\.zip:0\.npz: damaged in the \.zip"):
        next(iter(ClickMe(tmp_path / "all.zip")))
    (tmp_path / "all.zip").write_bytes(data[:-40])
    with pytest.raises(CorruptRecordError, match=r"all\.zip: no .npz in this .zip, or it is cut short"):
        next(iter(ClickMe(tmp_path / "all.zip")))
    (tmp_path / "all.zip").write_bytes(data[:1000])
    with pytest.raises(CorruptRecordError, match=r"all\.zip: not a \.zip file, or cut short"):
        next(iter(ClickMe(tmp_path / "all.zip")))
    write_zip(tmp_path / "all.zip", {"a.txt": b""})
    with pytest.raises(CorruptRecordError, match=r"all\.zip: no \.npz in this \.zip, or"):
        next(iter(ClickMe(tmp_path / "all.zip")))


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch harmed",)


def test_pth_objects_are_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    contents = {
        "more than tensors in it": {"image": Harmful()},
        "not a Tensor": image,
        "no heatmap": {"image": image},
        "heatmap is a str": {"image": image, "heatmap": "x"},
        "not (4, 4)": {"image": image[0], "heatmap": image[:1]},
        "label is [1 2]": {"image": image, "heatmap": image[:1], "label": torch.tensor([1, 2])},
    }
    for i, content in enumerate(contents.values()):
        torch.save(content, tmp_path / f"{i}.pth")
    (tmp_path / "6.pth").write_bytes(b"text")
    (tmp_path / "7.pth").write_bytes(pth(0)[:200])
    torch.save({"image": image, "heatmap": torch.ones(1, 5, 6), "label": 7}, tmp_path / "8.pth")
    kept, skipped = _skipping(tmp_path, 8)
    assert kept == ["8.pth"]
    for reason, (_, found) in zip([*contents, "damaged", "damaged"], skipped, strict=True):
        assert reason in found
    assert not (tmp_path / "harmed").exists()
    sample = next(iter(ClickMe(tmp_path / "8.pth")))
    assert (sample.label, sample.human.shape) == (7, (5, 6))


def test_damaged_tar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    offsets = write_tar(path, {f"{i}": members(i) for i in range(3)})
    whole = path.read_bytes()
    third, last = offsets[8], offsets[-1]
    end = last + 1024
    for length in range(512, end, 512):
        path.write_bytes(whole[:length])
        kept, skipped = _skipping(path, 1)
        complete = sum(length >= offsets[i] for i in (3, 7, 11))
        assert kept == [f"a.tar:{i}" for i in range(complete)]
        assert "cut short" in skipped[0][1]
    path.write_bytes(whole[: third + 100])
    with pytest.raises(CorruptRecordError, match=r"a\.tar: byte \d+: .*cut short"):
        list(ClickMe(path))
    flipped = bytearray(whole)
    flipped[third + 3] ^= 1
    path.write_bytes(flipped)
    kept, skipped = _skipping(path, 1)
    assert kept == ["a.tar:0", "a.tar:1"]
    assert skipped == [("a.tar", f"byte {third}: a member's header is damaged, so nothing from here on can be read")]
    for content, reason in ((b"", "empty"), (b"x" * 2000, "not a .tar"), (bytes(10240), "no sample")):
        path.write_bytes(content)
        assert reason in _skipping(path, 1)[1][0][1]


def test_bad_members(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    good = members(0)
    bad = {
        "no heatmap.npy in it; there is cls, jpg": {"jpg": good["jpg"], "cls": b"1"},
        "no jpg in it; there is cls, heatmap.npy": {k: good[k] for k in ("cls", "heatmap.npy")},
        "is damaged": {**good, "jpg": good["jpg"][:80]},
        "heatmap.npy is not an .npy file": {**good, "heatmap.npy": b"text"},
        "cls is 'dog', not a class number": {**good, "cls": b"dog"},
        "the heatmap is (h, w)": {**good, "heatmap.npy": npy(np.zeros((2, 3, 4)))},
        "allow_pickle=False": {**good, "heatmap.npy": npy(np.array([{}], dtype=object))},
    }
    samples = {f"b/{i}": parts for i, parts in enumerate(bad.values())}
    unlabelled = {"png": encoded(pixels(1), "PNG"), "heatmap.npy": good["heatmap.npy"]}
    write_tar(path, {**samples, "c/0": unlabelled, "c/.hidden": {"jpg": b""}, "d/0": good})
    kept, skipped = _skipping(path, len(bad))
    assert kept == ["a.tar:c/0", "a.tar:d/0"]
    for (reason, _), (name, found), key in zip(bad.items(), skipped, samples, strict=True):
        assert name == f"a.tar:{key}"
        assert reason in found
    unlabelled_sample = next(iter(ClickMe(path, "skip")))
    assert unlabelled_sample.label is None
    assert np.array_equal(unlabelled_sample.image.permute(1, 2, 0), pixels(1))


def test_repeated_name_in_a_tar_loses_nothing(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for i in range(2):
            for extension, data in members(i).items():
                info = tarfile.TarInfo(f"same.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    assert [s.label for s in ClickMe(tmp_path)] == [0, 1]


def test_damage_is_reported_by_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = write_tar(tmp_path / "a.tar", {f"{i}": members(i) for i in range(5)})
    data = (tmp_path / "a.tar").read_bytes()
    write_records(tmp_path / "b.tfrecords", map(harmonization, range(5)))
    records = (tmp_path / "b.tfrecords").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: offsets[13] + 100])
    (tmp_path / "b.tfrecords").write_bytes(records[: len(records) * 3 // 4])
    (tmp_path / "c.zip").write_bytes(b"")
    for name, complete in (("a.tar", 3), ("b.tfrecords", 3), ("c.zip", 0)):
        kept, skipped = [], []
        for worker in range(4):
            _become(monkeypatch, worker, 4)
            data_set = ClickMe(tmp_path / name, "skip")
            kept += [s.label for s in data_set]
            skipped += data_set.skipped
        assert kept == list(range(complete))
        assert len(skipped) == 1


def test_files_of_other_names(tmp_path: Path) -> None:
    """Keras stores the Harmonization shards without a suffix, both splits in one folder."""
    write_records(tmp_path / "clickme_val_0", [harmonization(1)])
    write_records(tmp_path / "clickme_val_1", [harmonization(2)])
    (tmp_path / "clickme_val_0.tfrecords.md5").write_text("text")
    (tmp_path / "README").write_text("a text that is longer than thirteen bytes")
    assert [s.name for s in ClickMe(tmp_path)] == ["clickme_val_0:0", "clickme_val_1:0"]
    write_records(tmp_path / "clickme_train_0", [harmonization(3)])
    with pytest.raises(
        ValueError, match=r"shards of several splits here \(train, val\); choose with a pattern.*clickme_val_\*\.$"
    ):
        ClickMe(tmp_path)
    assert [s.label for s in ClickMe(str(tmp_path / "*val*"))] == [1, 2]
    assert [s.label for s in ClickMe(str(tmp_path / "clickme_*"))] == [3, 1, 2]
    (tmp_path / "clickme_val_0").rename(tmp_path / "val.tfrecords-00000-of-00001")
    assert [s.label for s in ClickMe(tmp_path / "val.tfrecords-00000-of-00001")] == [1]


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none: there is no such file or folder"):
        ClickMe(tmp_path / "none")
    with pytest.raises(ValueError, match=r"no ClickMe format here \(looked for \*\.tfrecords, \*\.npz.*\)\.$"):
        ClickMe(tmp_path)
    (tmp_path / "val").mkdir()
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(ValueError, match="it has the subfolders val"):
        ClickMe(tmp_path)
    with pytest.raises(ValueError, match=r"no ClickMe format here"):
        ClickMe(tmp_path / "*.npz")
    with pytest.raises(ValueError, match=r"text\.txt: not a ClickMe format"):
        ClickMe(tmp_path / "text.txt")
    (tmp_path / "a.npz").write_bytes(npz(0))
    (tmp_path / "a.pth").write_bytes(pth(0))
    with pytest.raises(ValueError, match=r"several formats here \(npz, pth\)"):
        ClickMe(tmp_path)
    assert [s.name for s in ClickMe(tmp_path / "*.pth")] == ["a.pth"]
    with pytest.raises(ValueError, match="on_corrupt must be 'raise' or 'skip'"):
        ClickMe(tmp_path / "*.pth", "ignore")
