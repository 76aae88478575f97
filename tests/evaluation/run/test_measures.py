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
from captum_astro.evaluation.run.scoring import Scorer
from captum_astro.models.loading import load_model
from tests.evaluation.making import config


def test_a_sample_by_hand() -> None:
    torch.manual_seed(3)
    model = load_model("bench_vit_nano", pretrained=False).double()
    model.float()
    made = config("VTranM", crop="none", steps=4)
    dataset = samples("scenes", 2)
    rows = Scorer("nano", model, made, made.metrics, ("predicted", "true")).score(dataset, range(2)).rows
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


def test_a_constant_map_agrees_with_nobody() -> None:
    from captum_astro.evaluation.run.measures import Batch, Job, measure

    batch = Batch(torch.rand(1, 3, 8, 8), torch.zeros(1, 3), [None], [None], [torch.rand(8, 8)])
    figures = measure([Job("a", 0, torch.ones(8, 8), {"predicted": 0})], batch, ("Spearman",), None)
    assert [figure.value for figure in figures] == [0.0]


def test_every_metric_of_two_maps_has_its_function() -> None:
    from captum_astro.evaluation.run.human import HUMAN
    from captum_astro.evaluation.run.measures import COUNTED, MASKED
    from captum_astro.evaluation.specification.metrics import METRICS

    kinds = {name: info.kind for name, info in METRICS.items() if not info.of_model}
    assert {*COUNTED, *MASKED} == {name for name, kind in kinds.items() if kind in ("segmentation", "localisation")}
    assert set(COUNTED) == {name for name, info in METRICS.items() if info.pooled is not None}
    assert set(HUMAN) == {name for name, kind in kinds.items() if kind == "human"}
