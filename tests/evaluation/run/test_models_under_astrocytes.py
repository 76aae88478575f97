"""``vita:NAME`` as a model of the benchmark."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from captum_astro import ViTA, VTranM
from captum_astro.data.specs import human_samples, samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.report import write_report
from captum_astro.evaluation.run import read_run, run_bench
from captum_astro.evaluation.run.human import prepared
from captum_astro.evaluation.specification import model_of
from captum_astro.evaluation.vita.config import EvaluationConfig
from captum_astro.evaluation.vita.evaluate import evaluate
from captum_astro.evaluation.vita.settings import Setting
from captum_astro.metrics import spearman
from captum_astro.models.loading import load_model
from tests.evaluation.making import NAME, config, contents

OPTIONS = "layer=blocks.1.mlp.fc1:alpha=2:phi=0"
WORD = f"vita:{NAME}:{OPTIONS}"
BOTH = (model_of(NAME), model_of(WORD))


def _plain() -> torch.nn.Module:
    torch.manual_seed(0)
    return load_model(NAME, pretrained=False)


def test_rows_of_the_model_and_of_the_model_under_astrocytes(tmp_path: Path) -> None:
    made = config("VTranM,Random", "accuracy,aopc,spearman", models=BOTH, chunk_size=6)
    run_bench(made, tmp_path / "both")
    found = read_run(tmp_path / "both")
    rows = {name: own.reset_index(drop=True) for name, own in found.rows.groupby("model")}
    assert set(rows) == {NAME, WORD}
    assert found.rows["error"].isna().all()
    run_bench(dataclasses.replace(made, models=BOTH[:1]), tmp_path / "one")
    assert rows[NAME].equals(read_run(tmp_path / "one").rows)
    model, dataset = _plain(), samples("scenes", 6)
    vita = ViTA(model, layer="blocks.1.mlp.fc1", alpha=2.0, phi=0.0)
    transform = ModelTransform(model, "none")
    x = transform.normalise(torch.stack([transform(dataset[i].image)[0] for i in range(6)]))
    with torch.no_grad():
        chosen, seen = model(x).argmax(-1), vita(x).argmax(-1)
    labels = torch.tensor([dataset[i].label for i in range(6)])
    maps = VTranM(vita).attribute(x, target=chosen, attribute_to="pixels")[:, 0]
    human = torch.stack([prepared(dataset[i].human, 32, "") for i in range(6)])
    own = rows[WORD].set_index(["metric", "method", "explained"])["value"].sort_index()
    assert own["accuracy", "-", "-"].tolist() == (seen == labels).double().tolist()
    assert own["Spearman", "VTranM", "predicted"].tolist() == pytest.approx(spearman(maps, human).tolist(), abs=1e-5)
    plain = rows[NAME].set_index(["metric", "method", "explained"])["value"].sort_index()
    for metric, method in (("Spearman", "VTranM"), ("AOPC", "Random")):  # the maps differ, and so do the answers
        assert not own[metric, method, "predicted"].equals(plain[metric, method, "predicted"])
    assert (own["Spearman", "Random", "predicted"] == plain["Spearman", "Random", "predicted"]).all()
    page = write_report(tmp_path / "both", tmp_path / "report.html").read_text()
    assert WORD in page


def test_same_scores_as_evaluating_the_setting(tmp_path: Path) -> None:
    run_bench(config("TokenGradCAM,VTranM", "human", models=BOTH, explained="predicted", chunk_size=6), tmp_path)
    rows = read_run(tmp_path).rows.sort_values(["model", "method", "metric", "sample"])
    setting = Setting.of({"layer": "blocks.1.mlp.fc1", "alpha": 2.0, "phi": 0.0})
    names = ["spearman", "dice", "iou", "ssim"]
    how = EvaluationConfig(("TokenGradCAM", "VTranM"), metrics=tuple(names))
    found = evaluate(_plain(), human_samples("scenes", 6), setting, how)
    scores = found.scores[found.scores["method"] != "-"].assign(model=lambda t: t["setting"].map({-1: NAME, 0: WORD}))
    scores["metric"] = scores["metric"].map({name.lower(): name for name in rows["metric"].unique()})
    scores = scores.sort_values(["model", "method", "metric", "sample"])
    assert rows["value"].tolist() == pytest.approx(scores["value"].tolist(), abs=1e-5, nan_ok=True)


def test_record_and_resume(tmp_path: Path) -> None:
    made = config("Random", "accuracy,saco", models=(model_of(WORD),))
    run_bench(made, tmp_path)
    record = read_run(tmp_path).config["models"][WORD]
    assert record["vita"]["layer"] == "blocks.1.mlp.fc1"
    assert (record["vita"]["alpha"], record["vita"]["k"], record["input"]["input_size"]) == (2.0, 6, 32)
    expected = contents(tmp_path)
    (tmp_path / "chunks" / "rows-00-000001.parquet").unlink()
    (tmp_path / "results.parquet").unlink()
    assert run_bench(made, tmp_path).computed == 1
    assert contents(tmp_path) == expected
    with pytest.raises(ValueError, match="another run"):
        run_bench(config("Random", "accuracy,saco", models=(model_of(f"{WORD}:k=4"),)), tmp_path)


def test_methods_with_their_own_astrocytes_only_run_on_the_plain_model(tmp_path: Path) -> None:
    said: list[str] = []
    run_bench(config("ViTAGradCAM,Random", "saco", models=BOTH, limit=2), tmp_path, say=said.append)
    assert said == [f"Left out for {WORD}, which has astrocytes already: ViTAGradCAM."]
    rows = read_run(tmp_path).rows
    assert {name: set(own["method"]) for name, own in rows.groupby("model")} == {
        NAME: {"ViTAGradCAM", "Random"}, WORD: {"Random"},
    }  # fmt: skip
    with pytest.raises(ValueError, match="ViTAGradCAM: no method is left for vita:"):
        run_bench(config("ViTAGradCAM", "saco", models=BOTH), tmp_path / "none")


def test_missing_layer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no layer 'blocks\.9\.mlp\.fc1'"):
        run_bench(config("Random", "saco", models=(model_of(f"vita:{NAME}:layer=blocks.9.mlp.fc1"),)), tmp_path)
    assert not list(tmp_path.iterdir())
