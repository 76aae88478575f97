from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captum_astro.evaluation.specification import ModelChoice
from captum_astro.versions import versions
from tests.evaluation.making import config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 1}, "steps must be at least 2"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"examples": -1}, "examples"),
        ({"limit": 0}, "limit"),
        ({"explained": "label"}, "explained must be predicted, true or both"),
        ({"crop": "centre"}, "crop must be"),
        ({"amp": "fp8"}, "amp must be"),
        ({"device": "gpu"}, "device must be cpu, cuda, cuda:1, mps"),
        ({"models": ()}, "at least one model"),
        ({"models": (ModelChoice("a"), ModelChoice("a"))}, "a is given twice"),
    ],
)
def test_values_out_of_range(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_record_has_everything_that_results_depend_on() -> None:
    described = config(device="cuda:1", models=(ModelChoice("a", Path("/x/one.pt")), ModelChoice("a", Path("two.pt"))))
    assert described.described()["models"] == ["a@one", "a@two"]
    assert described.described()["device"] == "cuda"
    assert config(amp="bfloat16").autocast is torch.bfloat16
    assert {"torch", "timm", "captum", "numpy", "python", "captum_astro"} <= set(versions())
    assert versions(["no-such-library"])["no-such-library"] == "unknown"
