"""The rows against the metrics computed by hand, map by map, with the model run on each perturbed image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from sklearn.metrics import average_precision_score

from captum_astro import VTranM
from captum_astro.data.specs import samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.batches import Batch, Job
from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.measures import measure
from captum_astro.evaluation.run.scoring import Scorer
from captum_astro.metrics.declaration import Given, Metric
from captum_astro.metrics.perturber import Perturber
from captum_astro.metrics.registry import metric_named
from captum_astro.models.loading import load_model
from tests.evaluation.making import config, scored

NOBODY = Perturber(lambda images: images, lambda pixels: pixels, batch_size=1)  # for metrics that ask no model


def test_a_sample_by_hand() -> None:
    torch.manual_seed(3)
    model = load_model("bench_vit_nano", pretrained=False).double()
    model.float()
    made = config("VTranM", crop="none", steps=4)
    dataset = samples("scenes", 2)
    rows = scored(Scorer("nano", model, made, ("predicted", "true")), dataset, range(2)).rows
    found = {(row.metric, row.explained): row for row in rows if row.sample == 1}
    transform = ModelTransform(model, "none")
    sample = dataset[1]
    pixels, mask = transform(sample.image, sample.mask)
    with torch.no_grad():
        logits = model(transform.normalise(pixels)[None])
    predicted = int(logits.argmax())
    assert found["accuracy", "-"].value == float(predicted == sample.label)
    for explained, chosen in (("predicted", predicted), ("true", sample.label)):
        map_ = VTranM(model).attribute(transform.normalise(pixels)[None], target=chosen, attribute_to="pixels")[0, 0]
        flat = map_.flatten().double().numpy()
        rising = np.argsort(flat, kind="stable")
        right: dict[str, list[float]] = {"negative AUC": [], "positive AUC": []}
        probability = []
        for level in range(5):
            count = round(level / 4 * 1024)
            for name, order in (("negative AUC", rising), ("positive AUC", rising[::-1])):
                bare = pixels.flatten(1).clone()
                bare[:, order[:count].copy()] = 0
                with torch.no_grad():
                    answer = model(transform.normalise(bare.view_as(pixels))[None])[0].double()
                right[name].append(float(int(answer.argmax()) == sample.label))
                if name == "positive AUC":
                    probability.append(float(answer.softmax(-1)[chosen]))
        for name, curve in right.items():
            assert list(found[name, explained].curve) == curve
            assert found[name, explained].value == pytest.approx(trapezoid(curve, dx=1 / 4))
        p = np.array(probability)
        assert found["AOPC", explained].curve == pytest.approx(p, abs=1e-6)
        assert found["AOPC", explained].value == pytest.approx((p[0] - p[1:]).mean(), abs=1e-6)
        assert found["LOdds", explained].value == pytest.approx(np.log(p[1:] / p[0]).mean(), abs=1e-5)
        truth, seen = mask.numpy().ravel() == 1, flat > flat.mean()
        assert found["pixel accuracy", explained].value == pytest.approx((truth == seen).mean())
        ious = [(truth & seen).sum() / (truth | seen).sum(), (~truth & ~seen).sum() / (~truth | ~seen).sum()]
        assert found["mIoU", explained].value == pytest.approx(np.mean(ious))
        unit = (flat - flat.min()) / (flat.max() - flat.min())
        both = average_precision_score(np.stack([~truth, truth]).ravel(), np.stack([1 - unit, unit]).ravel())
        assert found["mAP", explained].value == pytest.approx(both, abs=1e-9)
        assert found["pointing game", explained].value == pytest.approx(truth[flat == flat.max()].mean())
        positive = flat.clip(min=0)
        assert found["energy inside", explained].value == pytest.approx(positive[truth].sum() / positive.sum())
    assert found["object share", "-"].value == pytest.approx((mask == 1).double().mean().item())
    for metric in ("Spearman", "Dice", "IoU", "SSIM", "SaCo"):
        assert -1 <= found[metric, "predicted"].value <= 1


def test_constant_map_scores_zero_agreement() -> None:
    batch = Batch(torch.rand(1, 3, 8, 8), torch.zeros(1, 3), [0], [None], [None], [torch.rand(8, 8)])
    found = measure([Job("a", 0, torch.ones(8, 8), {"predicted": 0})], batch, [metric_named("Spearman")], NOBODY)()
    assert [figure.value for figure in found.figures] == [0.0]
    assert found.failures == {}


def test_a_metric_that_fails_on_one_map_fails_there_alone() -> None:
    """All other values of this metric and of the others are present."""

    def sums(given: Given) -> torch.Tensor:
        if (given.maps == 2).any():
            raise RuntimeError("no twos")
        return given.maps.sum((1, 2))

    metrics = [Metric("sum", sums), Metric("first", lambda given: given.maps[:, 0, 0])]
    batch = Batch(torch.rand(2, 3, 4, 4), torch.zeros(2, 3), [0, 0], [None] * 2, [None] * 2, [None] * 2)
    jobs = [Job("a", i % 2, torch.full((4, 4), float(i)), {"predicted": 0}) for i in range(4)]
    found = measure(jobs, batch, metrics, NOBODY)()
    assert {(f.job, f.metric): f.value for f in found.figures} == {
        **{(i, "sum"): 16.0 * i for i in (0, 1, 3)}, **{(i, "first"): float(i) for i in range(4)},
    }  # fmt: skip
    assert found.failures == {(2, "sum"): Failure("RuntimeError", "no twos", "metric")}


def test_a_metric_of_classes_is_computed_for_each() -> None:
    seen: list[list[int]] = []

    def classes(given: Given) -> torch.Tensor:
        seen.append(given.classes.tolist())
        return given.classes.double()

    metrics = [Metric("class", classes, needs=("classes",)), Metric("any", lambda given: given.maps[:, 0, 0])]
    batch = Batch(torch.rand(3, 3, 4, 4), torch.zeros(3, 9), [5, 5, 6], [7, 5, None], [None] * 3, [None] * 3)
    jobs = [Job("a", 0, torch.zeros(4, 4), {"predicted": 5, "true": 7}),
            Job("a", 1, torch.zeros(4, 4), {"predicted": 5, "true": 5}),
            Job("a", 2, torch.zeros(4, 4), {"predicted": 6})]  # fmt: skip
    found = measure(jobs, batch, metrics, NOBODY)()
    assert seen == [[5, 7, 5], [6]]
    assert [(f.job, f.explained, f.value) for f in found.figures if f.metric == "class"] == [
        (0, "predicted", 5.0), (0, "true", 7.0), (1, "predicted", 5.0), (1, "true", 5.0), (2, "predicted", 6.0),
    ]  # fmt: skip
    assert len([f for f in found.figures if f.metric == "any"]) == 5


def test_maps_of_several_methods_share_the_batches_of_a_metric() -> None:
    torch.manual_seed(0)
    model, sizes = load_model("bench_vit_nano", pretrained=False), list[int]()
    model.register_forward_pre_hook(
        lambda module, inputs: sizes.append(len(inputs[0])) if torch.is_inference_mode_enabled() else None
    )
    made = config("VTranM,RawAttention,AttentionRollout,Random", "average drop", crop="none", batch_size=5)
    scored(Scorer("nano", model, made, ("predicted",)), samples("scenes", 2), range(2))
    assert sizes == [2, 5, 3]  # the two images, and a masked one for each of eight maps
