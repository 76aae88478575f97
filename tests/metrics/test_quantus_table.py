"""Every row of the table in docs/quantus.md is run as written."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import quantus
import timm
import torch

from captum_astro import VTranM
from captum_astro.metrics.quantus import quantus_explain

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:quantus", "ignore::RuntimeWarning:quantus")
PAGE = Path(__file__).parents[2] / "docs" / "quantus.md"


class Row(NamedTuple):
    metric: str
    verdict: str
    constructor: str
    call: str
    explains: str
    batch: str
    note: str


def rows() -> list[Row]:
    table = PAGE.read_text().split("| metric | verdict |")[1].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [Row(*line) for line in cells]


ROWS = {row.metric: row for row in rows()}


@dataclass
class Counted:
    """An explain_func that counts its calls."""

    explain: Callable[..., Any]
    calls: int = 0

    def __call__(self, **kwargs: Any) -> Any:
        self.calls += 1
        return self.explain(**kwargs)


@dataclass
class Case:
    """A tiny model with everything that the table's cells refer to."""

    size: int
    patch: int

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = timm.create_model(
            "vit_tiny_patch16_224", img_size=self.size, patch_size=self.patch, embed_dim=24, depth=2, num_heads=2,
            num_classes=10,
        ).eval()  # fmt: skip
        for parameter in self.model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        self.x = np.random.default_rng(0).random((4, 3, self.size, self.size), dtype=np.float32)
        self.y = np.array([1, 3, 5, 7])
        self.explain = Counted(quantus_explain(VTranM, output="logit"))
        self.maps = self.explain.explain(self.model, self.x, self.y)
        self.masks = np.zeros((4, 1, self.size, self.size), dtype=int)
        self.masks[:, :, 4 : self.size // 2, 4:-4] = 1

    def arguments(self, cell: str) -> dict[str, Any]:
        names = {"masks": self.masks, "classes": 10, "positions": [(1, 0, 0, 1)] * 4}
        return eval(f"dict({cell.strip('`')})", {}, names)

    def run(self, metric: str, constructor: str = "", call: str = "", batch: int = 4, **more: Any) -> Any:
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        made = getattr(quantus, metric)(**{"disable_warnings": True} | self.arguments(constructor))
        given = {"a_batch": self.maps.copy(), "explain_func": self.explain, "batch_size": batch}
        with contextlib.redirect_stdout(io.StringIO()):
            return made(model=self.model, x_batch=self.x, y_batch=self.y, **given | self.arguments(call) | more)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(32, 8)


@pytest.fixture(scope="module")
def small() -> Case:
    return Case(8, 4)


def _numbers(scores: Any) -> np.ndarray:
    return np.asarray(list(scores.values()) if isinstance(scores, dict) else scores, dtype=float)


def _words(row: Row) -> str:
    found = re.search("`(.+?)`", row.note)
    assert found, f"{row.metric}: the error is missing in the last column"
    return re.escape(found[1])


def test_the_table_has_every_metric() -> None:
    exported = {
        name for name, value in vars(quantus).items() if isinstance(value, type) and issubclass(value, quantus.Metric)
    }
    everything = {metric.__name__ for group in quantus.AVAILABLE_METRICS.values() for metric in group.values()}
    assert set(ROWS) == everything
    assert everything <= exported
    assert len(ROWS) == 37
    assert {row.verdict for row in ROWS.values()} == {"works", "needs", "broken", "misleading"}


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.verdict != "broken"], ids=lambda row: row.metric)
def test_a_row(row: Row, case: Case, small: Case) -> None:
    used = small if row.metric == "NonSensitivity" else case
    used.explain.calls = 0
    scores = _numbers(used.run(row.metric, row.constructor, row.call))
    assert np.isfinite(scores).all()
    assert (used.explain.calls > 0) == (row.explains == "yes")
    if row.explains == "no" and row.verdict != "misleading":
        np.testing.assert_array_equal(
            _numbers(used.run(row.metric, row.constructor, row.call, explain_func=None)), scores
        )
    if row.verdict == "needs":
        with pytest.raises(Exception, match=_words(row)):
            used.run(row.metric)
    if row.batch == "any":
        other = _numbers(used.run(row.metric, row.constructor, row.call, batch=2))
        np.testing.assert_allclose(other, scores, rtol=1e-3, atol=1e-5)
    elif row.batch == "whole":
        others = [_numbers(used.run(row.metric, row.constructor, row.call, batch=size)) for size in (2, 3)]
        others += (
            [_numbers(used.run(row.metric, row.constructor, row.call, batch=1))] if row.metric == "Consistency" else []
        )
        assert any(other.shape != scores.shape or not np.allclose(other, scores) for other in others)
    else:
        assert row.batch == "random"


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.verdict == "broken"], ids=lambda row: row.metric)
def test_broken_row(row: Row, case: Case) -> None:
    with pytest.raises(Exception, match=_words(row)):
        case.run(row.metric, row.constructor, row.call)


def test_monotonicity_sees_constant_images(case: Case) -> None:
    spread = []
    handle = case.model.register_forward_pre_hook(lambda module, given: spread.append(given[0].flatten(1).std(1).max()))
    random = np.random.default_rng(0).random(case.maps.shape)
    assert all(case.run("Monotonicity", "features_in_step=256", a_batch=random))
    handle.remove()
    assert max(spread) < 1e-6


def test_smooth_mprt_overwrites_maps_and_never_calls_explain_func(case: Case) -> None:
    maps = case.maps.copy()
    case.explain.calls = 0
    case.run("SmoothMPRT", "nr_samples=2", a_batch=maps)
    assert case.explain.calls == 0
    assert not np.allclose(maps, case.maps)


def test_completeness_is_never_true(case: Case) -> None:
    assert not any(case.run("Completeness"))


def test_notes_about_options(case: Case, small: Case) -> None:
    average = case.run("MPRT", "return_average_correlation=True")
    layers = case.run("MPRT")
    np.testing.assert_allclose(average, np.mean(list(layers.values()), axis=0), rtol=1e-5)
    assert np.allclose(layers["original"], 1, atol=1e-5)  # the first of the layers averaged
    with pytest.raises(Exception, match=r"could not be broadcast|operands"):
        small.run("NonSensitivity", "features_in_step=4")
    flip = "features_in_step=256, return_auc_per_sample=True"
    if hasattr(np, "trapz"):
        assert len(case.run("PixelFlipping", flip)) == 4
    else:
        with pytest.raises(AttributeError, match="module 'numpy' has no attribute 'trapz'"):
            case.run("PixelFlipping", flip)
    with pytest.raises(AssertionError):
        case.run("FaithfulnessEstimate", "features_in_step=100")
    assert case.run("Consistency", batch=1) == [0] * 4
    with pytest.raises(ValueError, match="length at least 2"):
        case.run("SensitivityN", "features_in_step=256", batch=1)
    one = case.run("Infidelity", "perturb_patch_sizes=[8], n_perturb_samples=1")
    np.testing.assert_allclose(one, case.run("Infidelity", "perturb_patch_sizes=[8], n_perturb_samples=2"), rtol=1e-4)
    scale = np.array([1, 1e3, 1e6, 1e9]).reshape(4, 1, 1, 1)
    scaled = case.maps / np.abs(case.maps).max((1, 2, 3), keepdims=True) * scale
    assert case.run("EffectiveComplexity", "eps=0.01", a_batch=scaled)[0] == 0
    own = "eps=0.01, normalise_func_kwargs={'normalise_axes': (1, 2, 3)}"
    assert case.run("EffectiveComplexity", own, a_batch=scaled)[0] > 0
