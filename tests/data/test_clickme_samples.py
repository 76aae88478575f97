from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from captum_astro.data.clickme import ClickMe
from captum_astro.data.clickme_samples import ClickMeSamples
from captum_astro.data.tfrecord import CorruptRecordError
from tests.data.test_clickme import harmonization, members, npz, write_tar
from tests.data.test_tfrecord import write_records


def _npz(folder: Path) -> None:
    for i in range(6):
        (folder / f"{i}.npz").write_bytes(npz(i))


def _tfrecords(folder: Path) -> None:
    for shard in range(2):
        write_records(folder / f"val-{shard}.tfrecords", [harmonization(3 * shard + i) for i in range(3)])


def _tar(folder: Path) -> None:
    for shard in range(3):
        write_tar(folder / f"val-{shard}.tar", {str(2 * shard + i): members(2 * shard + i) for i in range(2)})


@pytest.mark.parametrize("write", [_npz, _tfrecords, _tar])
def test_by_number(tmp_path: Path, write: object) -> None:
    write(tmp_path)
    wanted, data = list(ClickMe(tmp_path)), ClickMeSamples(tmp_path)
    assert len(data) == len(wanted) == 6
    for index in (0, 1, 1, 4, 5, 2, 0, 3):
        sample, human = data[index], wanted[index]
        assert (sample.name, sample.label, sample.mask) == (human.name, human.label, None)
        assert torch.equal(sample.image, human.image)
        assert torch.equal(sample.human, human.human)
    names = [sample.name for sample in wanted]
    # data has a file open now: neither forked processes nor copies go on from its place
    assert [sample.name for sample in DataLoader(data, batch_size=None, num_workers=2)] == names
    assert pickle.loads(pickle.dumps(data))[5].name == names[5]
    assert data[4].name == names[4]
    assert [sample.name for sample in ClickMeSamples(tmp_path, limit=4)] == names[:4]
    with pytest.raises(IndexError, match="There are 4 images"):
        ClickMeSamples(tmp_path, limit=4)[4]


def test_a_damaged_sample(tmp_path: Path) -> None:
    _npz(tmp_path)
    (tmp_path / "2.npz").write_bytes(b"no")
    data = ClickMeSamples(tmp_path)
    with pytest.raises(CorruptRecordError, match=r"2\.npz"):
        data[2]
    assert data[3].name == "3.npz"
