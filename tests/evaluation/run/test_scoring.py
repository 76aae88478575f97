from __future__ import annotations

import errno
from typing import Any

import pytest
import torch

from captum_astro import VTranM
from captum_astro.attr.attention_rollout import AttentionRollout
from captum_astro.data.samples import Sample
from captum_astro.data.specs import samples
from captum_astro.evaluation.run.scoring import Scorer
from captum_astro.metrics import energy_inside, registry
from captum_astro.metrics.declaration import Metric
from captum_astro.metrics.registry import all_metrics
from captum_astro.models.loading import load_model
from tests.evaluation.making import Listed, config, scored

BOTH = ("predicted", "true")


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return load_model("bench_vit_nano", pretrained=False)


def _scored(model: torch.nn.Module, dataset: Any, numbers: range, methods: str = "VTranM,Random", metrics: str = "all"):
    made = config(methods, metrics, crop="none")
    return scored(Scorer("nano", model, made, BOTH), dataset, numbers)


def _said(row) -> str | None:
    return None if row.failure is None else str(row.failure)


def _by_key(rows) -> dict[tuple[int, str, str, str], Any]:
    return {(row.sample, row.method, row.metric, row.explained): row for row in rows}


def test_every_failure_has_rows_and_affects_nothing_else(model) -> None:
    good = [samples("scenes", 3)[i] for i in range(3)]
    whole = _by_key(_scored(model, Listed(list(good)), range(3)).rows)
    broken = [good[0], OSError("truncated file"), good[1]._replace(label=None), good[2]._replace(mask=None, human=None)]
    rows = _scored(model, Listed(broken), range(4)).rows
    found = _by_key(rows)
    assert len(found) == len(rows)
    per_sample = 2 + 2 * (2 * 19 + 1)  # two of the model, and for two methods 19 metrics twice and SaCo
    assert sum(key[0] == 0 for key in found) == sum(key[0] == 1 for key in found) == per_sample
    assert {_said(row) for row in rows if row.sample == 1} == {"OSError: truncated file"}
    assert {row.name for row in rows if row.sample == 1} == {"sample 1"}
    for key, row in whole.items():
        if key[0] == 0:
            assert found[key] == row
    unlabelled = {key[2:]: _said(row) for key, row in found.items() if key[:2] == (2, "VTranM")}
    assert {explained for _, explained in unlabelled} == {"predicted"}
    assert {metric for (metric, _), error in unlabelled.items() if error} == {"positive AUC", "negative AUC"}
    assert unlabelled["positive AUC", "predicted"] == "ValueError: this sample has no label"
    bare = {key[2] for key, row in found.items() if key[0] == 3 and _said(row)}
    assert bare == {name for name, info in all_metrics().items() if {"masks", "human_maps"} & set(info.needs)}
    assert _said(found[3, "-", "object share", "-"]) == "ValueError: this sample has no mask"


@pytest.mark.parametrize("kind", ["raises", "nan"])
def test_a_method_that_fails_on_one_sample(model, monkeypatch, kind: str) -> None:
    dataset = samples("scenes", 3)
    expected = _by_key(_scored(model, dataset, range(3)).rows)
    attribute = VTranM.attribute
    asked = []

    def fails(self, inputs, **keywords):
        asked.append(len(inputs))
        found = attribute(self, inputs, **keywords)
        for i, image in enumerate(inputs):
            if torch.equal(image, second):
                if kind == "raises":
                    raise RuntimeError("no good")
                found[i] = torch.nan
        return found

    made = config("VTranM", crop="none")
    second = Scorer("nano", model, made, BOTH)._transform
    pixels, _ = second(dataset[1].image)
    second = second.normalise(pixels)
    monkeypatch.setattr(VTranM, "attribute", fails)
    found = _by_key(_scored(model, dataset, range(3)).rows)
    assert found.keys() == expected.keys()
    error = "RuntimeError: no good" if kind == "raises" else "ValueError: the map holds NaN or infinite values"
    for key, row in found.items():
        if key[:2] == (1, "VTranM"):
            assert (row.value, _said(row)) == (None, error)
        else:
            assert _said(row) is None
            # explained alone, a map differs by rounding, and so may the order of its pixels
            assert row.value == pytest.approx(expected[key].value, abs=0.05 if row.method == "VTranM" else 0)
    assert asked[0] == 3
    assert (asked[1:4] == [1, 1, 1]) == (kind == "raises")


def test_method_that_does_not_support_the_model(model, monkeypatch) -> None:
    def refuses(self, forward_func):
        raise TypeError("not with this model")

    monkeypatch.setattr(VTranM, "__init__", refuses)
    rows = _scored(model, samples("scenes", 2), range(2), metrics="saco,auc").rows
    assert {(row.method, _said(row)) for row in rows} == {
        ("VTranM", "TypeError: not with this model"),
        ("Random", None),
    }


def test_machine_errors_end_the_run(model, monkeypatch) -> None:
    def full(self, *arguments, **keywords):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(VTranM, "attribute", full)
    with pytest.raises(torch.OutOfMemoryError):
        _scored(model, samples("scenes", 2), range(2))
    dataset = Listed([OSError(errno.EMFILE, "too many files")])
    with pytest.raises(OSError, match="too many"):
        _scored(model, dataset, range(1))


def test_nan_output_for_one_image(model, monkeypatch) -> None:
    scorer = Scorer("nano", model, config("Random", "saco,accuracy", crop="none"), BOTH)
    untouched = scorer._perturber.untouched
    monkeypatch.setattr(
        scorer._perturber, "untouched", lambda p: torch.cat([untouched(p)[:-1], torch.full((1, 10), torch.nan)])
        if len(p) == 2 else untouched(p),
    )  # fmt: skip
    rows = scored(scorer, samples("scenes", 2), range(2)).rows
    assert {_said(row) for row in rows if row.sample == 0} == {None}
    assert {_said(row) for row in rows if row.sample == 1} == {
        "ValueError: the model's output holds NaN or infinite values"
    }
    assert len(rows) == 2 * 2


def test_one_map_serves_both_classes(model, monkeypatch) -> None:
    """If the classes coincide, or the method ignores the class, nothing is computed twice."""
    calls: dict[str, list[int]] = {"VTranM": [], "AttentionRollout": []}
    for method in (VTranM, AttentionRollout):
        original = method.attribute

        def counted(self, inputs, target, original=original, **keywords):
            calls[type(self).__name__].append(len(inputs))
            return original(self, inputs, target=target, **keywords)

        monkeypatch.setattr(method, "attribute", counted)
    found = [samples("scenes", 4)[i] for i in range(4)]
    with torch.no_grad():
        scorer = Scorer("nano", model, config("Random", crop="none"), BOTH)
        pixels = torch.stack([scorer._transform(sample.image)[0] for sample in found])
        predicted = model(scorer._transform.normalise(pixels)).argmax(-1).tolist()
    labels = [predicted[0], (predicted[1] + 1) % 10, predicted[2], (predicted[3] + 3) % 10]
    dataset: list[Sample | Exception] = [
        sample._replace(label=label) for sample, label in zip(found, labels, strict=True)
    ]
    seen = []
    hook = model.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if torch.is_inference_mode_enabled() else None
    )
    rows = _by_key(_scored(model, Listed(dataset), range(4), "VTranM,AttentionRollout", "auc,aopc,lodds").rows)
    hook.remove()
    assert calls == {"VTranM": [4, 2], "AttentionRollout": [4]}
    assert sum(seen) == 4 + 1 + (6 + 4) * 2 * 3  # untouched, blank, and for each map two directions of three levels
    for key, row in rows.items():
        sample, method, metric, explained = key
        assert _said(row) is None
        other = rows[sample, method, metric, "true" if explained == "predicted" else "predicted"]
        if sample in (0, 2) or (method == "AttentionRollout" and "AUC" in metric):
            assert (row.value, row.curve) == (other.value, other.curve)
    assert rows[1, "AttentionRollout", "AOPC", "true"].value != rows[1, "AttentionRollout", "AOPC", "predicted"].value
    assert rows[1, "VTranM", "AOPC", "true"].curve != rows[1, "VTranM", "AOPC", "predicted"].curve


def test_a_label_that_the_model_does_not_have(model) -> None:
    good = [samples("scenes", 2)[i] for i in range(2)]
    dataset = Listed([good[0]._replace(label=10), good[1]])
    rows = _scored(model, dataset, range(2), "VTranM,Random", "accuracy,auc,energy inside").rows
    assert {_said(row) for row in rows if row.sample == 0} == {
        "ValueError: label 10 is none of the model's classes, 0 to 9"
    }
    assert {_said(row) for row in rows if row.sample == 1} == {None}
    made = config("Random", "energy inside", crop="none")
    rows = scored(Scorer("nano", model, made, ("predicted",)), dataset, range(2)).rows
    assert {_said(row) for row in rows} == {None}  # no label is needed


@pytest.mark.parametrize("metrics", ["auc", "aopc", "saco"])
def test_nan_output_for_a_perturbed_image(model, metrics: str) -> None:
    """The argmax of NaN would be a class, and its curve a value."""
    dataset = samples("scenes", 1)
    whole: list[torch.Tensor] = []

    class Fragile(type(model)):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            whole.append(x[:1].detach().clone())
            touched = (x != whole[0]).flatten(1).any(1)
            return super().forward(x).masked_fill(touched[:, None], torch.nan)

    kept, model.__class__ = model.__class__, Fragile
    try:
        rows = _scored(model, dataset, range(1), "RawAttention", metrics).rows
    finally:
        model.__class__ = kept
    assert {(row.value, _said(row)) for row in rows} == {
        (None, "ValueError: the model's output holds NaN or infinite values for perturbed images")
    }


def test_custom_metric(model, monkeypatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    registry.register(
        Metric("inverse", lambda given: 1 - energy_inside(given.maps, given.masks), needs=("masks",), direction=-1)
    )
    rows = _scored(model, samples("scenes", 1), range(1), "VTranM", "inverse, energy inside").rows
    values = {(row.metric, row.explained): row.value for row in rows}
    assert len(values) == len(rows) == 4
    for explained in BOTH:
        assert values["inverse", explained] == 1 - values["energy inside", explained]


def test_a_metric_that_fails_has_its_rows_and_leaves_the_others(model, monkeypatch) -> None:
    def fails(given: object) -> torch.Tensor:
        raise RuntimeError("no good")

    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    registry.register(Metric("broken", fails))
    rows = _scored(model, samples("scenes", 2), range(2), "VTranM", "broken, SaCo, AOPC").rows
    assert {(row.metric, _said(row)) for row in rows} == {
        ("broken", "RuntimeError: no good"), ("SaCo", None), ("AOPC", None),
    }  # fmt: skip
    assert {row.failure.where for row in rows if row.metric == "broken"} == {"metric"}
