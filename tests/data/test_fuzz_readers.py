"""Damaged and forged files: every reader returns samples or a documented error that names the data, and ends soon."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from captum_astro.data.glove import read_glove
from captum_astro.data.registry import sources
from captum_astro.data.specs import samples
from captum_astro.data.texts import read_imdb, read_wikitext
from captum_astro.data.tokenisers import learn_words, load_tokeniser
from tests.data.test_clickme import clickme_1, harmonization, members, npz, pth, write_tar, write_zip
from tests.data.test_hub import hub_folder
from tests.data.test_imagenet_segmentation import _some, _written
from tests.data.test_tfrecord import write_records
from tests.training.making import cifar_parquet, imdb_parquet, png

SEED = int(os.environ.get("FUZZ_SEED", "0"))
CASES = 140  # of each form
FEW = {"imagenet, devkit": 6}  # each starts a process
SECONDS = 30  # that one case may take, on a busy machine
MEMORY = 2 << 30  # that it may allocate
STEM = "ILSVRC2012_val_{:08d}"


def _images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), 40 * number, np.uint8)).save(folder / name)


def _masks(folder: Path, value: int, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(6, 8, dtype=np.uint8) * np.uint8(value)).save(folder / name)


def _table(name: str, header: str, rows: str) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        _images(folder, "a.jpg", "b.jpg")
        (folder / name).write_text(header + rows)
        return [name, name, "a.jpg"]

    return write


def _imagenet_folders(folder: Path) -> list[str]:
    names = ["n01440764/a.JPEG", "n02123045/b.JPEG"]
    _images(folder, *names)
    return names


def _imagenet_list(name: str, text: str) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        _images(folder, *(f"{STEM.format(number)}.JPEG" for number in (1, 2)))
        (folder / name).write_text(text)
        if "ground_truth" not in name:
            return [name]
        synsets = np.array([(1, "n01440764"), (2, "n02123045")], [("ILSVRC2012_ID", object), ("WNID", object)])
        savemat(folder / "meta.mat", {"synsets": synsets[:, None]})
        return ["meta.mat", name]

    return write


def _voc(folder: Path) -> list[str]:
    _images(folder, "JPEGImages/a.jpg", "JPEGImages/b.jpg")
    _masks(folder, 15, "SegmentationClass/a.png", "SegmentationClass/b.png")
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\n")
    return ["SegmentationClass/a.png"]


def _plain_masks(folder: Path) -> list[str]:
    _images(folder, "images/a.png", "images/b.png")
    _masks(folder, 255, "masks/a.png", "masks/b.png")
    return ["masks/a.png", "images/a.png"]


def _segmentation(folder: Path) -> list[str]:
    _written(folder / "a.mat", *_some(2), target=["n02123045", "n01440764"], id=["x", "y"])
    return ["a.mat"]


def _batches(name: str, label: str) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        content = {b"data": np.zeros((2, 3072), np.uint8), label: [0, 9], "filenames": ["a.png", "b.png"]}
        for protocol in range(2, 6):
            (folder / f"{protocol}").mkdir()
            (folder / f"{protocol}" / name).write_bytes(pickle.dumps(content, protocol))
        return [f"{protocol}/{name}" for protocol in range(2, 6)]

    return write


def _cifar100_parquet(folder: Path) -> list[str]:
    rows = {"img": [png(np.zeros((32, 32, 3), np.uint8))] * 2, "fine_label": [99, 0]}
    pd.DataFrame(rows).to_parquet(folder / "cifar100_test.parquet")
    return ["cifar100_test.parquet"]


def _cifar10_parquet(folder: Path) -> list[str]:
    cifar_parquet(folder, 1, 3)
    return ["cifar10_test.parquet"]


def _hub_parquet(folder: Path) -> list[str]:
    hub_folder(folder, {"test": [range(3), range(3, 5)]})
    return [f"data/test-0000{part}-of-00002.parquet" for part in range(2)]


def _one(name: str, make: Callable[[int], bytes]) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        (folder / name).write_bytes(make(1))
        return [name]

    return write


def _records(make: Callable[[int], bytes]) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        write_records(folder / "a.tfrecords", map(make, range(3)))
        return ["a.tfrecords"]

    return write


def _zip(folder: Path) -> list[str]:
    write_zip(folder / "a.zip", {f"{i}.npz": npz(i) for i in range(2)})
    return ["a.zip"]


def _tar(folder: Path) -> list[str]:
    write_tar(folder / "a.tar", {f"{i}": members(i) for i in range(2)})
    return ["a.tar"]


def _imdb(folder: Path) -> list[str]:
    imdb_parquet(folder, 3, 1)
    return ["imdb_train.parquet"]


def _wikitext(folder: Path) -> list[str]:
    for split in ("valid", "test"):
        (folder / f"wiki.{split}.tokens").write_text(" = é = \n \n a b \n")
    return ["wiki.valid.tokens"]


def _glove(folder: Path) -> list[str]:
    (folder / "a.txt").write_text("the 1 2.5 -3e-2\nof 1 2 3\n")
    return ["a.txt"]


def _tokeniser(folder: Path) -> list[str]:
    learn_words(["a fine film"] * 2).save(str(folder / "t.json"))
    return ["t.json"]


BOX = "file,label,x0,y0,x1,y1\n"
# what is written, and how it is read: a word for --data, or a function; it is given the file, or with "/" its folder
FORMS: dict[str, tuple[Callable[[Path], list[str]], str | Callable[[Path], object]]] = {
    "boxes": (_table("boxes.csv", BOX, "a.jpg,7,1,0,3,2\na.jpg,7,2,2,5,5\nb.jpg,,0,0,8,6\n"), "boxes:/"),
    "folder": (_table("labels.csv", BOX, "a.jpg,7,1,0,3,2\nb.jpg,,,,,\n"), "folder:/"),
    "imagenet, folders": (_imagenet_folders, "imagenet://"),
    "imagenet, pairs": (
        _imagenet_list("val.txt", f"{STEM.format(1)}.JPEG 65\n{STEM.format(2)}.JPEG 7\n"),
        "imagenet:/",
    ),
    "imagenet, kaggle": (
        _imagenet_list("LOC_val_solution.csv", f"ImageId,PredictionString\n{STEM.format(1)},n01440764 1 2 3 4\n"),
        "imagenet:/",
    ),
    "imagenet, devkit": (_imagenet_list("ILSVRC2012_validation_ground_truth.txt", "1\n2\n"), "imagenet:/"),
    "imagenet-segmentation": (_segmentation, "imagenet-segmentation:"),
    "cifar10": (_batches("test_batch", "labels"), "cifar10:/"),
    "cifar100": (_batches("test", "fine_labels"), "cifar100:/"),
    "cifar10, parquet": (_cifar10_parquet, "cifar10:"),
    "cifar100, parquet": (_cifar100_parquet, "cifar100:/"),
    "hf": (_hub_parquet, "hf://"),
    "masks": (_plain_masks, "masks://"),
    "masks, voc": (_voc, "masks://"),
    "clickme, harmonization": (_records(harmonization), "clickme:"),
    "clickme, 1.0": (_records(clickme_1), "clickme:/"),
    "clickme, npz": (_one("a.npz", npz), "clickme:/"),
    "clickme, pth": (_one("a.pth", pth), "clickme:/"),
    "clickme, zip": (_zip, "clickme:"),
    "clickme, tar": (_tar, "clickme:"),
    "imdb": (_imdb, lambda file: read_imdb(file, "train")),
    "wikitext": (_wikitext, lambda file: read_wikitext(file.parent)),
    "glove": (_glove, lambda file: read_glove(file, {"the": 0, "of": 1})),
    "tokeniser": (_tokeniser, load_tokeniser),
}


def _damaged(data: bytes, draw: random.Random) -> bytes:
    """The data after one to three changes."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3))):
        place = draw.randrange(len(changed) + 1)
        match draw.randrange(9):
            case 0 | 1 | 2:  # bits; most of them in the headers, which are at the ends
                place = draw.choice((place, draw.randrange(200), len(changed) - 1 - draw.randrange(200)))
                if 0 <= place < len(changed):
                    changed[place] ^= 1 << draw.randrange(8)
            case 3:
                del changed[place:]
            case 4:
                del changed[place : place + draw.choice((1, 4, 64, 1000))]
            case 5:
                changed[place:place] = draw.choice(
                    (b"\0" * 512, b"\xff" * 8, bytes(changed[:100]), b",\n", b"9" * 5000)
                )
            case 6:  # a length or an offset
                number = draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1))
                size = draw.choice((4, 8))
                changed[place : place + size] = (number % (1 << 8 * size)).to_bytes(
                    size, draw.choice(("little", "big"))
                )
            case 7:  # a number in a text
                digits = [i for i, byte in enumerate(changed[:400]) if 48 <= byte < 58]
                if digits:
                    at = draw.choice(digits)
                    changed[at : at + 1] = draw.choice((b"-1", b"nan", b"1e999", b"99999999999", b"inf", b"", b"1.5"))
            case 8:
                changed[place : place + 64] = bytes(draw.randrange(256) for _ in range(64))
    return bytes(changed)


def _read(how: str | Callable[[Path], object], file: Path) -> Iterator[Callable[[], object]]:
    """The reading of the data, and of each sample."""
    if callable(how):
        yield lambda: how(file)
        return
    word, _, of = how.partition(":")
    data = samples(f"{word}:{[file, file.parent, file.parent.parent][len(of)]}")
    yield from ((lambda index=index: data[index]) for index in range(min(len(data), 5)))


def _outcome(how: str | Callable[[Path], object], file: Path, root: Path) -> str:
    """``rows`` or ``refused``; anything else raises."""
    outcome = "rows"
    steps = _read(how, file)
    while True:
        try:
            step = next(steps, None)
            if step is None:
                return outcome
            sample: Any = step()
        except (ValueError, FileNotFoundError) as error:
            if type(error) is UnicodeDecodeError or str(root) not in str(error) or len(str(error)) > 2000:
                raise
            outcome = "refused"
            continue
        if isinstance(how, str):
            assert sample.image.dtype == torch.uint8
            assert sample.image.shape[0] == 3
            assert sample.label is None or 0 <= sample.label < 1 << 31


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _run(form: str, folder: Path, to: Any) -> None:
    """The cases of one form, in a process of its own, whose end is seen."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_slow)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    write, how = FORMS[form]
    others = _examples(folder / "others")
    root = folder / "data"
    root.mkdir()
    files = [root / name for name in write(root)]
    assert all(_outcome(how, file, root) == "rows" for file in files)
    draw, found, wrong = random.Random(f"{SEED} {form}"), Counter[str](), []
    for number in range(FEW.get(form, CASES)):
        file = files[number % len(files)]
        whole = file.read_bytes()
        special = draw.randrange(20)
        file.write_bytes(draw.choice(others) if special == 0 else _damaged(whole, draw))
        if special == 1 and file.suffix not in (".png", ".jpg", ".JPEG"):
            os.truncate(file, 1 << 36)  # in no space on the disk
        to.put(("case", number))
        signal.alarm(SECONDS)
        try:
            found[_outcome(how, file, root)] += 1
        except BaseException as error:
            shutil.copy(file, folder / f"failed-{number}") if special != 1 else None
            lines = "".join(traceback.format_exception(error)[-3:])
            wrong.append(f"seed {SEED}, case {number}, {file.name}: {lines[-900:]}")
        signal.alarm(0)
        file.write_bytes(whole)
    to.put(("end", (dict(found), wrong)))


def _examples(folder: Path) -> list[bytes]:
    """Files of every kind, to be found under the name of another."""
    folder.mkdir()
    found = [b"", b"\n", b"\0" * 4096]
    for form in ("boxes", "imagenet-segmentation", "cifar10", "clickme, npz", "clickme, pth", "clickme, tar", "imdb"):
        (folder / form).mkdir()
        found += [(folder / form / name).read_bytes() for name in FORMS[form][0](folder / form)]
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", FORMS)
def test_damaged_files(form: str, tmp_path: Path) -> None:
    print(f"FUZZ_SEED={SEED}")
    sources()  # imported once, and not in each process
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_run, args=(form, tmp_path, queue))
    process.start()
    last: Any = None
    while process.is_alive() or not queue.empty():
        if queue.empty():
            process.join(0.02)
            continue
        kind, content = queue.get()
        if kind == "end":
            break
        last = content
    process.join()
    assert process.exitcode == 0, f"seed {SEED}, case {last}: the process ended with {process.exitcode}"
    found, wrong = content
    assert not wrong, "\n".join(wrong[:5])
    cases = FEW.get(form, CASES)
    assert sum(found.values()) == cases
    assert found["refused"] > cases // 10


def test_every_reader_is_fuzzed() -> None:
    words = {how.partition(":")[0] for _, how in FORMS.values() if isinstance(how, str)}
    assert words >= {word for word, source in sources().items() if source.place}
    assert sum(FEW.get(form, CASES) for form in FORMS) > 3000
