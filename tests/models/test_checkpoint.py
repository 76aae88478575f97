"""Weights files are recognised by their content; anything else is refused in words, and never executed."""

from __future__ import annotations

import argparse
import gzip
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from captum_astro.models.loading import ModelError, load_model
from tests.models.weights_files import NAME, jax, same_outputs, written


@pytest.mark.parametrize("ending", ["safetensors", "SAFETENSORS", "bin", "pt", "weights"])
@pytest.mark.parametrize("write", [save_file, torch.save])
def test_content_decides_and_not_the_ending(tmp_path: Path, ending: str, write: Callable[..., None]) -> None:
    model, file = written(), tmp_path / f"weights.{ending}"
    write(model.state_dict(), file)
    same_outputs(load_model(NAME, checkpoint=file), model)


def test_file_of_an_old_pytorch(tmp_path: Path) -> None:
    model = written()
    torch.save(model.state_dict(), tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    same_outputs(load_model(NAME, checkpoint=tmp_path / "weights.pth"), model)


def test_options_and_numpy_values_beside_the_weights(tmp_path: Path) -> None:
    model, file = written(), tmp_path / "last.pth"
    values = {
        "args": argparse.Namespace(lr=np.float64(0.1), folder=Path("/nowhere")),
        "best": np.float32(0.5),
        "epoch": np.int64(3),
        "curve": np.ones(3),
    }
    torch.save({"model": model.state_dict(), **values}, file)
    same_outputs(load_model(NAME, checkpoint=file), model)


def _cut(file: Path, write: Callable[..., None]) -> None:
    write(written().state_dict(), file)
    file.write_bytes(file.read_bytes()[:-200])


def _script(file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: None, ": there is no such file"),
        (lambda file: file.mkdir(), "is a folder: give the weights file in it"),
        (os.mkfifo, "is not a regular file, but a pipe or a device: copy its content to a file"),
        (lambda file: file.touch(), "is empty: copy or download it again"),
        (
            lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
            "run git lfs pull",
        ),
        (
            lambda file: file.write_text("\n<!DOCTYPE html>\n<html>"),
            "is a web page, not the weights: download the file",
        ),
        (
            lambda file: file.write_text('{"metadata": {}, "weight_map": {}}'),
            "is JSON, not the weights: give the file of",
        ),
        (lambda file: np.savez(file.open("wb"), a=np.ones(2)), "holds NumPy arrays, as JAX models do. timm converts"),
        (lambda file: np.save(file.open("wb"), np.ones(2)), "holds NumPy arrays, as JAX models do. timm converts"),
        (lambda file: file.write_bytes(gzip.compress(b"weights")), "is a compressed archive: unpack it"),
        (lambda file: file.write_text("weights"), "is neither safetensors nor a PyTorch file: give one of these"),
        (
            _script,
            "is a TorchScript program, not weights alone. Where it was written, save the weights alone: torch.save",
        ),
        (
            lambda file: file.write_bytes(b"\x80\x02 no pickle"),
            "may be damaged or incomplete: copy or download it again",
        ),
        (
            lambda file: file.write_bytes(pickle.dumps({"epoch": 3})),
            "may be damaged or incomplete: copy or download it",
        ),
        (lambda file: file.write_bytes((99).to_bytes(8, "little") + b'{"a"'), "may be damaged or incomplete: copy or"),
        (lambda file: _cut(file, save_file), "may be damaged or incomplete: copy or download it again"),
        (lambda file: _cut(file, torch.save), "may be damaged or incomplete: copy or download it again"),
    ],
)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_files_that_are_no_weights(tmp_path: Path, write: Callable[[Path], object], message: str, ending: str) -> None:
    file = tmp_path / f"weights.{ending}"
    write(file)
    with pytest.raises(ModelError) as found:
        load_model(NAME, checkpoint=file)
    assert message in str(found.value)
    assert str(found.value).startswith(str(file))
    assert "weights_only" not in str(found.value)


def test_advice_on_numpy_arrays_works(tmp_path: Path) -> None:
    model, file = written(), tmp_path / "weights.npz"
    np.savez(file, **jax(model.state_dict()))
    with pytest.raises(ModelError, match="checkpoint_path=FILE"):
        load_model(NAME, checkpoint=file)
    torch.save(timm.create_model(NAME, checkpoint_path=str(file)).state_dict(), tmp_path / "weights.pt")
    same_outputs(load_model(NAME, checkpoint=tmp_path / "weights.pt"), model)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"model": written().state_dict(), "epoch": Evil()}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="mkdir, and only tensors are read"):
        load_model(NAME, checkpoint=tmp_path / "weights.pt")
    assert not (tmp_path / "made").exists()
