"""Small weights files that would take any amount of time or memory are refused, by their names and at once."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from captum_astro.models.loading import ModelError, load_model
from tests.models.weights_files import NAME, same_outputs, written

MANY = 1 << 40


def _shared_parts() -> dict[str, Any]:
    """Two to the power of 60 paths to one tensor-free part."""
    part: dict[str, Any] = {"epoch": 1}
    for _ in range(60):
        part = {"a": part, "b": part}
    return part


def _part_in_itself(**also: Any) -> dict[str, Any]:
    part: dict[str, Any] = {**also}
    part["model"] = part
    return part


def _state(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
    return written().state_dict() | {name.replace("__", "."): value for name, value in changed.items()}


def _compressed(file: Path) -> None:
    """Rewrite an archive with compression."""
    with zipfile.ZipFile(file) as archive:
        held = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in held.items():
            archive.writestr(name, data)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_shared_parts, "holds no weights: give a file that"),
        (_part_in_itself, "holds no weights: give a file that"),
        (lambda: _part_in_itself(x=torch.ones(2)), "has parts in parts, more than 16 deep: save the weights alone"),
        (lambda: _state(head__weight=torch.ones(1, 1).expand(MANY, 24)), "'head.weight' has the shape"),
        (lambda: _state(pos_embed=torch.ones(1, 1, 1).expand(1, MANY, 24)), "'pos_embed' has the shape"),
        (
            lambda: _state(head__weight=torch.sparse_coo_tensor(size=(MANY, 24))),
            "'head.weight' is sparse, quantised or without values",
        ),
        (
            lambda: _state(head__weight=torch.empty(MANY, 24, device="meta")),
            "'head.weight' is sparse, quantised or without values",
        ),
        (
            lambda: _state(norm__bias=torch.quantize_per_tensor(torch.ones(24), 1, 0, torch.qint8)),
            "'norm.bias' is sparse, quantised or without values",
        ),
        (
            lambda: _state(norm__bias=torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
            "'norm.bias' is sparse, quantised or without values",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of torch, about nested and quantised tensors
def test_a_small_file_of_huge_effect(tmp_path: Path, content: Callable[[], Any], message: str) -> None:
    file = tmp_path / "weights.pt"
    torch.save(content(), file)
    with pytest.raises(ModelError) as found:
        load_model(NAME, checkpoint=file)
    assert str(found.value).startswith(str(file))
    assert message in str(found.value)


def test_a_compressed_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(_state(), file)
    _compressed(file)
    with pytest.raises(ModelError, match=r"is compressed, .*\. Where it was written, save the weights alone"):
        load_model(NAME, checkpoint=file)


def test_a_repeated_value_of_usual_size_is_no_attack(tmp_path: Path) -> None:
    model, file = written(), tmp_path / "weights.pt"
    state = model.state_dict()
    state["norm.bias"].fill_(2)
    torch.save(state | {"norm.bias": torch.tensor(2.0).expand(24)}, file)
    same_outputs(load_model(NAME, checkpoint=file), model)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "names",
    [[f"p{number}.norm.bias" for number in range(20_000)], ["." * 2_000_000 + "x"]],
    ids=["many prefixes", "a name of dots"],
)
def test_names_without_end(tmp_path: Path, names: list[str]) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({name: torch.zeros(1) for name in names}, file)
    with pytest.raises(ModelError, match="does not match weights_vit") as found:
        load_model(NAME, checkpoint=file)
    assert len(str(found.value)) < 1000
