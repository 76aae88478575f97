from __future__ import annotations

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
)
from captum_astro.data.human import HumanSample, prepare_heatmap
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.vita.results import PLAIN
from captum_astro.evaluation.vita.settings import Setting, grid
from captum_astro.metrics.alignment import spearman, ssim
from tests.evaluation.vita.making import GRID, make_model, make_samples, searched

BOTH = {"TokenGradCAM": ViTAGradCAM, "TokenGradCAMPlusPlus": ViTAGradCAMPlusPlus}


def _one_by_one(model: nn.Module, samples: list[HumanSample], settings: list[Setting], size: int) -> pd.DataFrame:
    """The same scores by the public methods, image by image."""
    transform, rows = ModelTransform(model, "none"), []
    for i, sample in enumerate(samples):
        x = transform.normalise(transform(sample.image)[0])[None]
        human = prepare_heatmap(sample.human, size)[None]
        top = model(x).argmax(-1)
        for number, setting in [(PLAIN, None), *enumerate(settings)]:
            for name, vita in BOTH.items():
                if setting is None:
                    plain = TokenGradCAM if name == "TokenGradCAM" else TokenGradCAMPlusPlus
                    maps = plain(model).attribute(x, target=top, attribute_to="pixels")
                else:
                    given = setting.keywords
                    maps = vita(model, modulated_layer=given.pop("layer"), **given).attribute(x, attribute_to="pixels")
                rows += [
                    (i, number, name, m, float(f(maps[:, 0], human)))
                    for m, f in (("spearman", spearman), ("ssim", ssim))
                ]
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
    model, samples, settings = make_model(name), make_samples(3), grid(layer=layers, **GRID)
    found = searched(model, samples, settings, metrics=["spearman", "ssim"], batch_size=2, rows=5)
    expected = _one_by_one(model, samples, settings, 32)
    got = found.scores.sort_values(KEYS).reset_index(drop=True)
    expected = expected.sort_values(KEYS).reset_index(drop=True)
    assert got[KEYS].equals(expected[KEYS])
    pd.testing.assert_series_equal(got["value"], expected["value"], rtol=0, atol=2e-3)
    assert got["name"].iloc[0] == "sample 0"


def test_swin_and_wrappers() -> None:
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, window_size=7, num_classes=5).eval()
    model.pretrained_cfg = {"input_size": (3, 56, 56), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    settings = grid(layer=["layers.2.blocks.0.attn.proj"], **GRID)
    found = searched(model, make_samples(2), settings, metrics=["spearman", "ssim"]).scores
    expected = _one_by_one(model, make_samples(2), settings, 56)
    got = found.sort_values(KEYS)["value"].reset_index(drop=True)
    pd.testing.assert_series_equal(got, expected.sort_values(KEYS)["value"].reset_index(drop=True), rtol=0, atol=2e-3)
    inner = make_model("cls")
    wrapped = searched(nn.Sequential(nn.Identity(), inner), make_samples(2), grid(**GRID), metrics=["ssim"]).scores
    assert wrapped.equals(searched(inner, make_samples(2), grid(**GRID), metrics=["ssim"]).scores)


def test_model_is_unchanged() -> None:
    model = make_model("cls")
    x = torch.randn(2, 3, 32, 32)
    before, keys = model(x), [sorted(vars(m)) for m in model.modules()]
    searched(model, make_samples(2), grid(layer=["blocks.1.attn.proj"], **GRID))
    assert torch.equal(model(x), before)
    assert keys == [sorted(vars(m)) for m in model.modules()]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_search_continues_past_undefined_scores() -> None:
    model, settings = make_model("cls"), grid(**GRID)
    constant = [sample._replace(human=torch.ones(4, 4) * 0) for sample in make_samples(4)]
    with pytest.raises(ValueError, match=r"No setting can be chosen: .* human maps are constant"):
        searched(model, constant, settings, metrics=["spearman", "ssim"]).best()
    half = [s if i % 2 == 0 else s._replace(human=torch.zeros(4, 4)) for i, s in enumerate(make_samples(4))]
    best = searched(model, half, settings, metrics=["spearman", "ssim"]).best().set_index("metric")
    assert set(best.index) == {"spearman", "ssim"}
    assert (best["n"] == 0).all()
    assert (best["left_out"] == 2).all()
    assert best["plain"].isna().all()
    assert best["p_holm"].isna().all()
    scores = searched(model, make_samples(4), settings, metrics=["ssim"])
    undefined = (scores.scores["metric"] == "ssim") & (scores.scores["sample"] == 1)
    scores.scores.loc[undefined, "value"] = float("nan")
    assert scores.best()["left_out"].tolist() == [1, 1]
    unnamed = [s if i else s._replace(label=None) for i, s in enumerate(make_samples(4))]
    for batch_size in (1, 2, 4):
        scores = searched(model, unnamed, settings, metrics=["ssim"], batch_size=batch_size).scores
        known = scores[(scores["metric"] == "accuracy") & (scores["setting"] == PLAIN)].dropna()
        assert known["sample"].tolist() == [1, 2, 3]


def test_half_precision() -> None:
    model = make_model("cls").bfloat16()
    assert searched(model, make_samples(2), grid(**GRID), metrics=["ssim"]).scores["value"].notna().all()


def test_bad_input() -> None:
    model = make_model("cls")
    with pytest.raises(ValueError, match=r"no method 'VTranM' here\. Known: TokenGradCAM"):
        searched(model, make_samples(1), grid(**GRID), methods=["VTranM"])
    with pytest.raises(ValueError, match="no metric 'auc' here"):
        searched(model, make_samples(1), grid(**GRID), metrics=["auc"])
    with pytest.raises(ValueError, match="at least one setting"):
        searched(model, make_samples(1), [])
    with pytest.raises(ValueError, match=r"At least two samples are needed, .* not 0"):
        searched(model, [], grid(**GRID))
    with pytest.raises(ValueError, match=r"At least two samples are needed, .* not 1"):
        searched(model, make_samples(1), grid(**GRID))
    with pytest.raises(UnsupportedModelError, match="was not called: Eva reads its weight"):
        searched(make_model("eva"), make_samples(2), grid(layer=["blocks.0.attn.qkv"], **GRID))
    with pytest.raises(ValueError, match="is in train mode"):
        searched(make_model("hybrid").train(), make_samples(2), grid(**GRID))
    broken = [*make_samples(1), make_samples(2)[1]._replace(human=torch.full((32, 32), torch.nan))]
    with pytest.raises(ValueError, match="human map of sample 1 holds NaN"):
        searched(model, broken, grid(**GRID))
    with pytest.raises(ValueError, match=r"no layer 'blocks\.7\.mlp\.fc1'"):
        searched(model, make_samples(1), grid(layer=["blocks.7.mlp.fc1"]))
