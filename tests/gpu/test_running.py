"""How methods run on a GPU: streams, replicas, memory, synchronisation, and the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from torch import nn

from captum_astro import TransformerMM, VTranM
from captum_astro.attr import _base, vtranm
from captum_astro.capture.carry import carry
from tests.commands import run_command
from tests.comparing import assert_close, tokens
from tests.evaluation import making
from tests.training.making import imdb_parquet


@pytest.fixture
def model() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", depth=3, num_classes=10).eval().cuda()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 224, 224, device="cuda")


def test_another_stream(model: nn.Module, x: torch.Tensor) -> None:
    expected = tokens(VTranM, model, x, 3)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = tokens(VTranM, model, x, 3)
    stream.synchronize()
    assert_close(got, expected, 1e-6)


def test_data_parallel(model: nn.Module, x: torch.Tensor) -> None:
    assert_close(tokens(VTranM, nn.DataParallel(model), x, 3), tokens(VTranM, model, x, 3), 1e-6)


def test_a_gpu_that_is_not_the_current_one(model: nn.Module, x: torch.Tensor) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU")
    expected = tokens(VTranM, model, x, 3)
    assert_close(tokens(VTranM, model.to("cuda:1"), x.to("cuda:1"), 3).to("cuda:0"), expected, 1e-6)


@pytest.mark.parametrize("method", [VTranM, TransformerMM])
def test_memory_stays_flat(method: Any, model: nn.Module, x: torch.Tensor) -> None:
    explain, used = method(model), []
    for _ in range(50):
        torch.cuda.reset_peak_memory_stats()
        explain.attribute(x, target=3)
        used.append((torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()))
    assert len(set(used[5:])) == 1


@pytest.mark.parametrize("method", [VTranM, TransformerMM])
def test_the_layers_do_not_synchronise(
    method: Any, model: nn.Module, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens(method, model, x, 3)  # compiles the kernel
    calls = []

    def watched(*given: Any) -> torch.Tensor:
        calls.append(given)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return carry(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for module in (_base, vtranm):
        monkeypatch.setattr(module, "carry", watched)
    tokens(method, model, x, 3)
    assert len(calls) == 1


def test_bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found, words = {}, ["bench", "--models", making.NAME, "--no-pretrained", "--methods", "VTranM,RawAttention"]
    words += ["--data", "scenes", "--limit", "4", "--metrics", "segmentation"]
    for device in ("cpu", "cuda"):
        code, out = run_command(monkeypatch, capsys, *words, "--device", device, "--out", tmp_path / device)
        assert code == 0, out
        found[device] = pd.read_parquet(tmp_path / device / "results.parquet")["value"]
    assert found["cuda"].notna().any()
    pd.testing.assert_series_equal(found["cuda"], found["cpu"], rtol=0, atol=1e-3)


def test_train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out = run_command(
        monkeypatch, capsys, "train", "imdb", "--data", imdb_parquet(tmp_path), "--out", tmp_path / "run", "--dim", 16,
        "--heads", 2, "--depth", 1, "--batch-size", 4, "--steps", 2, "--length", 20, "--device", "cuda",
    )  # fmt: skip
    assert code == 0, out
    assert "test accuracy" in out
