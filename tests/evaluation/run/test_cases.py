from __future__ import annotations

import pytest
import timm
import torch

from captum_astro.data.samples import Sample
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.cases import load_cases, numbers_of, probe, read_sample
from tests.evaluation.making import Listed

IMAGE = torch.arange(3 * 8 * 8, dtype=torch.uint8).view(3, 8, 8)
GOOD = Sample(IMAGE, 3, torch.ones(8, 8, dtype=torch.int8), torch.rand(8, 8), "good")


@pytest.fixture(scope="module")
def transform() -> ModelTransform:
    return ModelTransform(timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1), "none")


def test_unusable_samples_are_separated(transform) -> None:
    grey = GOOD._replace(image=IMAGE[:1], name="grey")
    blank = GOOD._replace(human=torch.full((8, 8), torch.nan), name="blank")
    dataset = Listed([GOOD, grey, OSError("cut short"), blank, GOOD._replace(mask=None, label=None, name="bare")])
    cases, failed = load_cases(dataset, range(5), transform, human=32)
    assert [(case.number, case.name, case.label) for case in cases] == [(0, "good", 3), (4, "bare", None)]
    assert cases[0].pixels.shape == (3, 32, 32)
    assert cases[0].mask is not None
    assert cases[0].mask.shape == (32, 32)
    assert cases[0].human is not None
    assert cases[0].human.shape == (32, 32)
    assert [(one.number, one.name, one.failure.type) for one in failed] == [
        (1, "grey", "ValueError"), (2, "sample 2", "OSError"), (3, "blank", "ValueError"),
    ]  # fmt: skip
    assert [case.number for case in load_cases(dataset, range(4), transform)[0]] == [0, 3]


def test_memory_that_does_not_suffice_is_said_to_lack_for_a_sample(transform) -> None:
    """It ends the run, so that no row tells of which."""
    with pytest.raises(MemoryError, match=r"^sample 1 does not fit into memory \(no 9 GB\)$"):
        load_cases(Listed([GOOD, MemoryError("no 9 GB")]), range(2), transform)

    def full(*args: object) -> None:
        raise MemoryError

    with pytest.raises(MemoryError, match=r"^good does not fit into memory \(MemoryError\)$"):
        load_cases(Listed([GOOD]), [0], full)


def test_non_utf8_name_can_be_written(transform) -> None:
    dataset = Listed([GOOD._replace(name="caf\udce9.png"), OSError("no caf\udce9.png")])
    [case], [failed] = load_cases(dataset, range(2), transform)
    assert case.name == "caf\\udce9.png"
    assert str(failed.failure) == "OSError: no caf\\udce9.png"
    assert probe(dataset).count == 2


def test_probe_includes_the_first_and_last_sample() -> None:
    bare = GOOD._replace(mask=None, human=None)
    found = probe(Listed([bare] * 40 + [GOOD]))
    assert (found.count, found.has) == (41, {"labels", "masks", "human_maps"})
    assert probe(Listed([bare, bare])).has == {"labels"}
    assert probe(Listed([ValueError("no"), bare])).has == {"labels"}
    with pytest.raises(ValueError, match="No sample of the data can be read: ValueError: no"):
        probe(Listed([ValueError("no")] * 2))
    with pytest.raises(ValueError, match="contains no samples"):
        probe(Listed([]))


@pytest.mark.parametrize("kind", ["image", "label", "mask", "human", "name"])
def test_the_digest_is_of_everything_in_a_sample(transform, kind: str) -> None:
    value = {"label": 4, "name": "other"}.get(kind)
    if value is None:
        value = getattr(GOOD, kind).clone()
        value[0, 0] = 0 if kind != "image" else 9
    changed = Listed([GOOD._replace(**{kind: value})])
    before = read_sample(Listed([GOOD]), 0).digest
    assert read_sample(changed, 0).digest != before
    [case], _ = load_cases(changed, range(1), transform)
    assert case.digest == read_sample(changed, 0).digest
    errors = Listed([OSError("a"), OSError("b"), OSError("a")])
    one, other, same = (read_sample(errors, i).digest for i in range(3))
    assert one == same != other != before


def test_chunks_are_all_samples_once() -> None:
    assert [list(numbers_of(chunk, 4, 9)) for chunk in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
