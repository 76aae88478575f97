from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from torch import nn

from captum_astro import (
    TokenGradCAM,
    TokenGradCAMPlusPlus,
    UnsupportedModelError,
    ViTA,
    ViTAGradCAM,
    ViTAGradCAMPlusPlus,
    VTranM,
)
from captum_astro.astro.evaluate import evaluate
from captum_astro.astro.results import PLAIN, Results
from captum_astro.astro.scoring import METRICS
from captum_astro.astro.search import _Scorer, search
from captum_astro.astro.settings import Setting, grid
from captum_astro.data.human import HumanSample, prepare_heatmap
from captum_astro.functional.astrocyte import Modulation
from captum_astro.metrics import compare_paired
from captum_astro.models.loading import ModelInput
from tests.families import build

MILD = {"phi": [0.0, 0.3], "alpha": [1.5], "beta": [0.3], "k": [4], "tau": [2, 3]}
BOTH = {"TokenGradCAM": ViTAGradCAM, "TokenGradCAMPlusPlus": ViTAGradCAMPlusPlus}


def _samples(count: int, size: int = 32) -> list[HumanSample]:
    generator = torch.Generator().manual_seed(0)
    return [
        HumanSample(
            torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator),
            torch.rand(size, size, generator=generator),
            i % 5,
            f"sample {i}",
        )
        for i in range(count)
    ]


def _model(name: str) -> nn.Module:
    model = build(name, torch.float32)
    model.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return model


def _one_by_one(model: nn.Module, samples: list[HumanSample], settings: list[Setting], size: int) -> pd.DataFrame:
    """The same scores by the public methods, image by image."""
    pixels, rows = ModelInput(model), []
    for i, sample in enumerate(samples):
        x, human = pixels(sample.image)[None], prepare_heatmap(sample.human, size)[None]
        top = model(x).argmax(-1)
        for number, setting in [(PLAIN, None), *enumerate(settings)]:
            for name, vita in BOTH.items():
                if setting is None:
                    plain = TokenGradCAM if name == "TokenGradCAM" else TokenGradCAMPlusPlus
                    maps = plain(model).attribute(x, target=top, attribute_to="pixels")
                else:
                    given = setting.keywords
                    maps = vita(model, modulated_layer=given.pop("layer"), **given).attribute(x, attribute_to="pixels")
                rows += [(i, number, name, m, float(METRICS[m](maps[:, 0], human))) for m in ("spearman", "ssim")]
            under = model if setting is None else ViTA(model, **setting.keywords)
            rows.append((i, number, "-", "same class", float(under(x).argmax(-1) == top)))
            rows.append((i, number, "-", "accuracy", float(under(x).argmax(-1) == sample.label)))
    # a map that is the same everywhere orders nothing
    return pd.DataFrame(rows, columns=["sample", "setting", "method", "metric", "value"]).fillna(0.0)


KEYS = ["sample", "setting", "method", "metric"]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("cls", [None, "blocks.0.attn.qkv", "blocks.1.mlp.fc1", "blocks.2.attn.proj"]),
        ("average", ["blocks.1.attn.proj"]),
        ("eva02", ["blocks.0.attn.proj", "blocks.2.mlp.fc1_g"]),
        ("parallel_things", [None]),
        ("parallel_scaling", ["blocks.1.attn_out_proj"]),
        ("map_pooling", ["attn_pool.kv"]),
        ("post_norm", ["blocks.1.mlp.fc2"]),
    ],
)
def test_agrees_with_separate_runs(name: str, layers: list[str | None]) -> None:
    model, samples, settings = _model(name), _samples(3), grid(layer=layers, **MILD)
    found = search(model, samples, settings, metrics=["spearman", "ssim"], batch_size=2, rows=5)
    expected = _one_by_one(model, samples, settings, 32)
    got = found.scores.sort_values(KEYS).reset_index(drop=True)
    expected = expected.sort_values(KEYS).reset_index(drop=True)
    assert got[KEYS].equals(expected[KEYS])
    pd.testing.assert_series_equal(got["value"], expected["value"], rtol=0, atol=2e-3)
    assert got["name"].iloc[0] == "sample 0"


@pytest.mark.parametrize(
    ("name", "layer", "cut"),
    [
        ("cls", "blocks.1.attn.proj", "layer"),
        ("cls", "blocks.1.mlp.fc1", "layer"),
        ("cls", "blocks.1.attn.qkv", "block"),
        ("map_pooling", "attn_pool.kv", "none"),
    ],
)
def test_runs_only_what_follows(name: str, layer: str, cut: str) -> None:
    model = _model(name)
    x = torch.stack([ModelInput(model)(sample.image) for sample in _samples(2)])
    scorer = _Scorer(model, grid(layer=[layer], **MILD), ("TokenGradCAM",), ("dice",), None, None, 8)
    assert scorer._suffix((layer, "auto"), x)._cut == cut
    calls = {"first": 0, "before": 0}
    handles = [
        model.blocks[0].register_forward_hook(lambda *_: calls.__setitem__("first", calls["first"] + 1)),
        model.blocks[1].attn.qkv.register_forward_hook(
            lambda m, a, o: calls.__setitem__("before", max(calls["before"], len(a[0])))
        ),
    ]
    scorer.score(_samples(2), 0)
    for handle in handles:
        handle.remove()
    assert calls["first"] == (2 if cut == "none" else 1)  # for the plain map, and never under a setting
    assert calls["before"] == (2 if cut == "layer" else 8)


def test_swin_and_wrappers() -> None:
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, window_size=7, num_classes=5).eval()
    model.pretrained_cfg = {"input_size": (3, 56, 56), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    settings = grid(layer=["layers.2.blocks.0.attn.proj"], **MILD)
    found = search(model, _samples(2), settings, metrics=["spearman", "ssim"]).scores
    expected = _one_by_one(model, _samples(2), settings, 56)
    got = found.sort_values(KEYS)["value"].reset_index(drop=True)
    pd.testing.assert_series_equal(got, expected.sort_values(KEYS)["value"].reset_index(drop=True), rtol=0, atol=2e-3)
    inner = _model("cls")
    wrapped = search(nn.Sequential(nn.Identity(), inner), _samples(2), grid(**MILD), metrics=["ssim"]).scores
    assert wrapped.equals(search(inner, _samples(2), grid(**MILD), metrics=["ssim"]).scores)


def test_the_model_is_as_it_was() -> None:
    model = _model("cls")
    x = torch.randn(2, 3, 32, 32)
    before, keys = model(x), [sorted(vars(m)) for m in model.modules()]
    search(model, _samples(2), grid(layer=["blocks.1.attn.proj"], **MILD))
    assert torch.equal(model(x), before)
    assert keys == [sorted(vars(m)) for m in model.modules()]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model, samples, settings = _model("cls"), _samples(7), grid(**MILD)
    whole = search(model, samples, settings, batch_size=2).scores

    def stop(count: int) -> None:
        if count >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(model, samples, settings, batch_size=2, out=tmp_path, done=stop)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.parquet")}
    assert len(written) == 2
    again = search(model, samples, settings, batch_size=2, out=tmp_path)
    assert all(file.stat().st_mtime_ns == before for file, before in written.items())
    pd.testing.assert_frame_equal(again.scores, whole, check_exact=True)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(ValueError, match=r"another run \(settings differ\)"):
        search(model, samples, settings[:2], batch_size=2, out=tmp_path)
    with torch.no_grad():
        model.head.bias.add_(1)
    with pytest.raises(ValueError, match=r"another run \(weights differ\)"):
        search(model, samples, settings, batch_size=2, out=tmp_path)


def test_results_belong_to_their_samples(tmp_path: Path) -> None:
    model, settings = _model("cls"), grid(**MILD)
    search(model, _samples(5), settings, batch_size=2, out=tmp_path)
    more = search(
        model, _samples(8), settings, batch_size=2, out=tmp_path
    )  # the last batch was short, and is done again
    pd.testing.assert_frame_equal(more.scores, search(model, _samples(8), settings, batch_size=2).scores)
    fewer = search(model, _samples(3), settings, batch_size=2, out=tmp_path).scores
    assert sorted(fewer["sample"].unique()) == [0, 1, 2]
    (tmp_path / "scores-000000.parquet").write_bytes(b"PAR1 cut short")
    again = search(model, _samples(3), settings, batch_size=2, out=tmp_path).scores
    pd.testing.assert_frame_equal(again, fewer)
    others = [sample._replace(human=sample.human + 1) for sample in _samples(3)]
    with pytest.raises(ValueError, match="results of other samples"):
        search(model, others, settings, batch_size=2, out=tmp_path)
    with pytest.raises(ValueError, match=r"another run \(cam_layer differ\)"):
        search(model, _samples(3), settings, batch_size=2, out=tmp_path, cam_layer="blocks.1.norm1")
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        search(model, _samples(3), settings, batch_size=2, out=tmp_path)


def test_undefined_scores_do_not_stop_a_search() -> None:
    model, settings = _model("cls"), grid(**MILD)
    constant = [sample._replace(human=torch.ones(4, 4) * 0) for sample in _samples(4)]
    best = search(model, constant, settings, metrics=["spearman", "ssim"]).best()
    assert set(best["metric"]) == {"ssim"}
    half = [s if i % 2 == 0 else s._replace(human=torch.zeros(4, 4)) for i, s in enumerate(_samples(4))]
    best = search(model, half, settings, metrics=["spearman", "ssim"]).best().set_index("metric")
    assert (best.loc["spearman", "n"] == 0).all()
    assert (best.loc["spearman", "left_out"] == 2).all()
    assert best.loc["spearman", "plain"].isna().all()
    assert best.loc["ssim", "p_holm"].notna().all()
    unnamed = [s if i else s._replace(label=None) for i, s in enumerate(_samples(4))]
    for batch_size in (1, 2, 4):
        scores = search(model, unnamed, settings, metrics=["ssim"], batch_size=batch_size).scores
        known = scores[(scores["metric"] == "accuracy") & (scores["setting"] == PLAIN)].dropna()
        assert known["sample"].tolist() == [1, 2, 3]


def test_half_precision() -> None:
    model = _model("cls").bfloat16()
    assert search(model, _samples(2), grid(**MILD), metrics=["ssim"]).scores["value"].notna().all()
    assert evaluate(model, _samples(2), grid(**MILD)[0], methods=["VTranM"]).scores["value"].notna().all()


def test_the_best_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    rows: list[Any] = []
    for i in range(12):
        for setting, value in ((PLAIN, 0.5), (0, 0.9 - 0.6 * (i % 2)), (1, 0.7 + 0.01 * i)):
            rows.append((i, str(i), setting, "TokenGradCAM", "dice", value))
            rows.append((i, str(i), setting, "-", "same class", float(setting != 0)))
    scores = pd.DataFrame(rows, columns=["sample", "name", "setting", "method", "metric", "value"])
    results = Results(scores, [Setting(Modulation()), Setting(Modulation(k=4), "blocks.1.mlp.fc1")])
    table = results.table("search")
    assert table[(table["setting"] == 0) & (table["metric"] == "dice")]["mean"].item() == pytest.approx(0.9)
    assert table[(table["setting"] == 1)]["layer"].iloc[0] == "blocks.1.mlp.fc1"
    (best,) = results.best().to_dict("records")
    assert best["setting"] == 0  # better on the even samples, worse on the odd ones
    assert best["n"] == 6
    assert best["modulated"] == pytest.approx(0.3)
    expected = compare_paired([0.3] * 6, [0.5] * 6)
    assert best["p_holm"] == best["p"] == expected.p_value
    assert best["difference"] == pytest.approx(-0.2)
    assert best["same_class"] == 0
    assert results.compare(1)["modulated"].item() == pytest.approx(0.755)


def test_evaluate(tmp_path: Path) -> None:
    model, samples, setting = _model("cls"), _samples(5), grid(**MILD)[0]
    found = evaluate(
        model, samples, setting, methods=["VTranM", "IntegratedGradients"], metrics=["ssim"], batch_size=2, out=tmp_path
    )
    x = torch.stack([ModelInput(model)(sample.image) for sample in samples])
    human = torch.stack([prepare_heatmap(sample.human, 32) for sample in samples])
    top = model(x).argmax(-1)
    for number, variant in ((PLAIN, model), (0, ViTA(model, **setting.keywords))):
        maps = VTranM(variant).attribute(x, target=top, attribute_to="pixels")[:, 0]
        rows = found.scores.query(f"setting == {number} and method == 'VTranM' and metric == 'ssim'")
        torch.testing.assert_close(
            torch.tensor(rows["value"].to_numpy()), METRICS["ssim"](maps, human), rtol=0, atol=1e-5
        )
    compared = found.compare()
    assert set(compared["method"]) == {"VTranM", "IntegratedGradients"}
    assert {"accuracy", "plain_accuracy", "same_class"} <= set(compared.columns)
    labelled = evaluate(model, samples, setting, methods=["VTranM"], metrics=["ssim"], explained="label", batch_size=5)
    maps = VTranM(model).attribute(x, target=[s.label for s in samples], attribute_to="pixels")[:, 0]
    rows = labelled.scores.query("setting == -1 and metric == 'ssim'")["value"].to_numpy()
    torch.testing.assert_close(torch.tensor(rows), METRICS["ssim"](maps, human), rtol=0, atol=1e-5)


def test_bad_input() -> None:
    model = _model("cls")
    with pytest.raises(ValueError, match=r"no method 'VTranM' here\. Known: TokenGradCAM"):
        search(model, _samples(1), grid(**MILD), methods=["VTranM"])
    with pytest.raises(ValueError, match="no metric 'auc' here"):
        search(model, _samples(1), grid(**MILD), metrics=["auc"])
    with pytest.raises(ValueError, match="at least one setting"):
        search(model, _samples(1), [])
    with pytest.raises(ValueError, match=r"There is no sample: one half chooses"):
        search(model, [], grid(**MILD))
    with pytest.raises(ValueError, match=r"There is 1 sample: one half chooses"):
        search(model, _samples(1), grid(**MILD))
    with pytest.raises(ValueError, match="There is no sample"):
        evaluate(model, [], grid(**MILD)[0])
    with pytest.raises(UnsupportedModelError, match="was not called: Eva reads its weight"):
        search(_model("eva"), _samples(2), grid(layer=["blocks.0.attn.qkv"], **MILD))
    for run in (lambda m: search(m, _samples(2), grid(**MILD)), lambda m: evaluate(m, _samples(2), grid(**MILD)[0])):
        with pytest.raises(ValueError, match="is in train mode"):
            run(_model("hybrid").train())
    with pytest.raises(ValueError, match="no method 'ViTAGradCAM' here"):
        evaluate(model, _samples(1), grid(**MILD)[0], methods=["ViTAGradCAM"])
    broken = [*_samples(1), _samples(2)[1]._replace(human=torch.full((32, 32), torch.nan))]
    with pytest.raises(ValueError, match="human map of sample 1 holds NaN"):
        search(model, broken, grid(**MILD))
    with pytest.raises(ValueError, match=r"no layer 'blocks\.7\.mlp\.fc1'"):
        search(model, _samples(1), grid(layer=["blocks.7.mlp.fc1"]))
    unnamed = [_samples(1)[0]._replace(label=None)]
    with pytest.raises(ValueError, match="sample 0 has no label"):
        evaluate(model, unnamed, grid(**MILD)[0], methods=["VTranM"], explained="label")
