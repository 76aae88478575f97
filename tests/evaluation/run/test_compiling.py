"""The models compiled for forward passes: the same rows, the same maps, and an error where it cannot be done."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from captum_astro.evaluation.run.bench import run_bench
from captum_astro.evaluation.run.compiling import compiled
from captum_astro.evaluation.run.results import read_run
from captum_astro.models.loading import load_model
from captum_astro.storage import read_record
from tests.evaluation.making import config


def test_compiled_forward_passes_give_the_same_rows(tmp_path: Path, monkeypatch) -> None:
    """By the compiler's first half, which needs no C++; a run may go on with it or without."""
    seen, real = [], torch.compile

    def compile_(model: torch.nn.Module) -> torch.nn.Module:
        seen.append(type(model).__name__)
        return real(model, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_)
    made = config("VTranM,Random", "aopc,saco", limit=4)
    run_bench(made, tmp_path / "plain")
    assert not seen
    run_bench(config("VTranM,Random", "aopc,saco", limit=4, compile=True), tmp_path / "compiled")
    assert seen == ["VisionTransformer"]
    plain, other = (read_run(tmp_path / name).rows for name in ("plain", "compiled"))
    assert other["error"].isna().all()
    for here, there in zip(plain["value"], other["value"], strict=True):
        assert math.isclose(here, there, rel_tol=1e-5, abs_tol=1e-6)
    assert read_record(tmp_path / "compiled" / "run.json")["configuration"]["compile"]
    (tmp_path / "compiled" / "results.parquet").unlink()
    assert run_bench(made, tmp_path / "compiled").computed == 0


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            RuntimeError("no compiler\nand more"),
            ValueError,
            r"^VisionTransformer cannot be compiled here \(no compiler\)",
        ),
        (torch.OutOfMemoryError("full"), torch.OutOfMemoryError, "^full$"),
    ],
)
def test_what_cannot_be_compiled_is_refused(monkeypatch, error: Exception, kind: type[Exception], said: str) -> None:
    def fails(*given: object) -> None:
        raise error

    monkeypatch.setattr(torch, "compile", lambda model: fails)
    with pytest.raises(kind, match=said):
        compiled(load_model("bench_vit_nano", pretrained=False), 32)
