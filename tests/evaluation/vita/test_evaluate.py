from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients

from captum_astro import (
    UnsupportedModelError,
    ViTA,
    VTranM,
)
from captum_astro.data.human import prepare_heatmap
from captum_astro.evaluation.vita import blur, centre
from captum_astro.evaluation.vita.another import another
from captum_astro.evaluation.vita.results import PLAIN
from captum_astro.evaluation.vita.settings import grid
from captum_astro.metrics.alignment import dice, ssim
from tests.evaluation.vita.making import GRID, evaluated, make_model, make_samples, model_inputs


def test_evaluate(tmp_path: Path) -> None:
    model, samples, setting = make_model("cls"), make_samples(5), grid(**GRID)[0]
    found = evaluated(
        model, samples, setting, methods=["VTranM", "IntegratedGradients"], metrics=["ssim"], batch_size=2, out=tmp_path
    )
    x = model_inputs(model, samples)
    human = torch.stack([prepare_heatmap(sample.human, 32) for sample in samples])
    top = model(x).argmax(-1)
    for number, variant in ((PLAIN, model), (0, ViTA(model, **setting.keywords))):
        maps = VTranM(variant).attribute(x, target=top, attribute_to="pixels")[:, 0]
        rows = found.scores.query(f"setting == {number} and method == 'VTranM' and metric == 'ssim'")
        torch.testing.assert_close(torch.tensor(rows["value"].to_numpy()), ssim(maps, human), rtol=0, atol=1e-5)
    compared = found.compare()
    assert set(compared["method"]) == {"VTranM", "IntegratedGradients"}
    assert {"accuracy", "plain_accuracy", "same_class"} <= set(compared.columns)
    labelled = evaluated(model, samples, setting, methods=["VTranM"], metrics=["ssim"], explained="label", batch_size=5)
    maps = VTranM(model).attribute(x, target=[s.label for s in samples], attribute_to="pixels")[:, 0]
    rows = labelled.scores.query("setting == -1 and metric == 'ssim'")["value"].to_numpy()
    torch.testing.assert_close(torch.tensor(rows), ssim(maps, human), rtol=0, atol=1e-5)


def test_controls_of_an_evaluation() -> None:
    model, samples, setting = make_model("cls"), make_samples(5), grid(**GRID)[0]
    found = evaluated(model, samples, setting, methods=["VTranM"], metrics=["dice", "ssim"], batch_size=2).controls
    x = model_inputs(model, samples)
    human = torch.stack([prepare_heatmap(sample.human, 32) for sample in samples])
    top = model(x).argmax(-1)
    variants = {PLAIN: model, 0: ViTA(model, **setting.keywords)}
    maps = {n: VTranM(v).attribute(x, target=top, attribute_to="pixels")[:, 0] for n, v in variants.items()}

    def got(control: str, metric: str, setting: int, width: float = 0.0) -> torch.Tensor:
        rows = found.query(f"control == '{control}' and metric == '{metric}' and setting == {setting}")
        return torch.tensor(rows[rows["width"] == width].sort_values("sample")["value"].to_numpy())

    for name, score in (("dice", dice), ("ssim", ssim)):
        for width in centre.WIDTHS:
            expected = score(centre.centred(32, width).expand(5, -1, -1), human)
            torch.testing.assert_close(got("centre", name, PLAIN, width), expected)
        for width in blur.WIDTHS:
            expected = score(blur.blurred(maps[PLAIN], width), human)
            torch.testing.assert_close(got("blurred", name, PLAIN, width), expected, rtol=0, atol=1e-5)
        elsewhere = human[[another(i) or 0 for i in range(1, 5)]]
        for number, own in maps.items():
            values = got("another", name, number)
            assert values[0].isnan()
            torch.testing.assert_close(values[1:], score(own[1:], elsewhere), rtol=0, atol=1e-5)


def test_half_precision() -> None:
    model = make_model("cls").bfloat16()
    assert evaluated(model, make_samples(2), grid(**GRID)[0], methods=["VTranM"]).scores["value"].notna().all()


def test_captum_method_at_a_custom_size() -> None:
    model, samples, setting = make_model("cls"), make_samples(2), grid(**GRID)[0]
    found = evaluated(model, samples, setting, methods=["IntegratedGradients"], metrics=["dice"], size=16).scores
    x = model_inputs(model, samples)
    human = torch.stack([prepare_heatmap(sample.human, 16) for sample in samples])
    top = model(x).argmax(-1)
    for number, variant in ((PLAIN, model), (0, ViTA(model, **setting.keywords))):
        maps = IntegratedGradients(variant).attribute(x, target=top, n_steps=32).abs().sum(1, keepdim=True).float()
        maps = F.interpolate(maps, (16, 16), mode="bilinear")[:, 0]
        rows = found.query(f"setting == {number} and metric == 'dice'")["value"].to_numpy()
        torch.testing.assert_close(torch.tensor(rows), dice(maps, human), rtol=0, atol=1e-6)


def test_resumes_where_it_stopped(tmp_path: Path) -> None:
    model, samples, setting = make_model("cls"), make_samples(5), grid(**GRID)[0]
    given: Any = {"methods": ["AttentionRollout"], "metrics": ["dice"], "batch_size": 2}

    def stop(count: int) -> None:
        if count >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluated(model, samples, setting, out=tmp_path, done=stop, **given)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.parquet")}
    assert len(written) == 2
    told: list[int] = []
    again = evaluated(model, samples, setting, out=tmp_path, done=told.append, **given)
    assert told == [2, 4, 5]
    assert all(file.stat().st_mtime_ns == before for file, before in written.items())
    whole = evaluated(model, samples, setting, **given)
    pd.testing.assert_frame_equal(again.scores, whole.scores)
    pd.testing.assert_frame_equal(again.controls, whole.controls)
    with pytest.raises(ValueError, match=r"another run \(explained differ\)"):
        evaluated(model, samples, setting, out=tmp_path, explained="label", **given)


def test_bad_input() -> None:
    model, setting = make_model("cls"), grid(**GRID)[0]
    with pytest.raises(ValueError, match="There are no samples"):
        evaluated(model, [], setting)
    with pytest.raises(ValueError, match="is in train mode"):
        evaluated(make_model("hybrid").train(), make_samples(2), setting)
    with pytest.raises(ValueError, match="no method 'ViTAGradCAM' here"):
        evaluated(model, make_samples(1), setting, methods=["ViTAGradCAM"])
    with pytest.raises(ValueError, match="no metric 'auc' here"):
        evaluated(model, make_samples(1), setting, metrics=["auc"])
    with pytest.raises(UnsupportedModelError, match=r"the first attention of Linear is not known"):
        evaluated(torch.nn.Linear(2, 2), make_samples(1), setting)
    unnamed = [make_samples(1)[0]._replace(label=None)]
    with pytest.raises(ValueError, match="sample 0 has no label"):
        evaluated(model, unnamed, setting, methods=["VTranM"], explained="label")
