"""Metrics that explain again, or blur: in a benchmark, resumed, and against what the functions give by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captum_astro import VTranM
from captum_astro.data.specs import samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.bench import run_bench
from captum_astro.evaluation.run.cases import load_cases
from captum_astro.evaluation.run.results import read_run
from captum_astro.metrics.max_sensitivity import max_sensitivity
from captum_astro.metrics.randomisation import randomisation
from captum_astro.metrics.registry import all_metrics
from captum_astro.models.loading import load_model
from captum_astro.models.randomised import randomised_copies
from tests.evaluation.making import config

ON_REQUEST = [name for name, metric in all_metrics().items() if metric.on_request]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("requested")
    run_bench(config(metrics=",".join(ON_REQUEST), limit=2), path)
    return path


def test_every_map_has_a_value(folder: Path) -> None:
    rows = read_run(folder).rows
    assert rows["error"].isna().all(), rows["error"].dropna().unique()
    assert set(rows["metric"]) == set(ON_REQUEST)
    assert len(rows) == 2 * 3 * 2 * len(ON_REQUEST)  # samples, methods, explained classes
    random = rows[rows["method"] == "Random"].set_index("metric")["value"]
    assert random["cascading randomisation"].abs().max() < 0.5  # other noise each time
    assert random["max-sensitivity"].min() > 0.1


def test_values_are_those_of_the_functions(folder: Path) -> None:
    rows = read_run(folder).rows.set_index(["sample", "method", "metric", "explained"])["value"]
    model = load_model("bench_vit_nano", pretrained=False)
    cases, _ = load_cases(samples("scenes", 2), range(2), ModelTransform(model, "timm"))
    pixels = torch.stack([case.pixels for case in cases])
    with torch.no_grad():
        chosen = model((pixels - 0.5) / 0.5).argmax(1)

    def explain(pictures: torch.Tensor, owners: torch.Tensor, explained: torch.nn.Module = model) -> torch.Tensor:
        target = chosen[owners]
        return VTranM(explained).attribute((pictures - 0.5) / 0.5, target=target, attribute_to="pixels")[:, 0]

    owners = torch.arange(2)
    maps = explain(pixels, owners)
    layers = torch.stack([explain(pixels, owners, copy) for _, copy in randomised_copies(model, cascading=True)], 1)
    expected = {
        "max-sensitivity": max_sensitivity(maps, pixels, explain),
        "cascading randomisation": randomisation(maps, layers).abs().mean(1),
    }
    for metric, values in expected.items():
        for sample in range(2):
            found = rows[sample, "VTranM", metric, "predicted"]
            assert found == pytest.approx(values[sample].item(), rel=1e-3), metric


def test_the_same_rows_in_two_parts(folder: Path, tmp_path: Path) -> None:
    run_bench(config(metrics=",".join(ON_REQUEST), limit=2, chunk_size=1), tmp_path)
    columns = ["sample", "method", "metric", "explained", "value"]
    one, two = (read_run(path).rows[columns].set_index(columns[:-1])["value"] for path in (folder, tmp_path))
    assert one.index.equals(two.index)
    assert (one - two).abs().max() < 1e-4
