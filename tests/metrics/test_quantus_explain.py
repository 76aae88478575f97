from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from captum.attr import IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency

from captum_astro import AttnLRP, VTranM, explainers
from captum_astro.astro import ViTA
from captum_astro.attr.vita_grad_cam import ViTAGradCAM
from captum_astro.metrics.quantus import quantus_explain
from tests.families import build, images

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:(quantus|captum.attr)", "ignore::RuntimeWarning:quantus")


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    x = images("cls", batch=4, dtype=torch.float32)
    return {"model": build("cls", torch.float32), "x_batch": x.numpy(), "y_batch": np.array([0, 1, 2, 4])}


def noise(model: torch.nn.Module) -> NoiseTunnel:
    return NoiseTunnel(Saliency(model))


def broken(model: torch.nn.Module) -> Any:
    return _Broken(model)


class _Broken(Saliency):
    def attribute(self, inputs: torch.Tensor, target: Any, value: float = torch.nan, shape: int = 32) -> torch.Tensor:
        found = torch.ones(len(inputs), 3, shape, shape)
        found[2, 0, 0, 0] = value
        return found


@pytest.mark.parametrize("explainer", explainers(), ids=lambda e: e.name)
@pytest.mark.filterwarnings("ignore:.*zero everywhere")
def test_every_method(explainer: Any, given: dict[str, Any]) -> None:
    explain = quantus_explain(explainer.method)
    found = explain(model=given["model"], inputs=given["x_batch"], targets=given["y_batch"], device="cpu", method="x")
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    assert found.shape == (4, 1, 32, 32)
    x = torch.from_numpy(given["x_batch"])
    whole = explainer.method(given["model"]).attribute(x, target=torch.from_numpy(given["y_batch"]))
    np.testing.assert_allclose(found, whole.sum(1, keepdim=True).numpy(), rtol=1e-4, atol=1e-5 * abs(found).max())


@pytest.mark.parametrize("method", [Saliency, IntegratedGradients, noise])
def test_methods_of_captum(method: Any, given: dict[str, Any]) -> None:
    x, y = torch.from_numpy(given["x_batch"]), torch.from_numpy(given["y_batch"])
    torch.manual_seed(0)
    expected = method(given["model"]).attribute(x, target=y)
    torch.manual_seed(0)
    found = quantus_explain(method)(given["model"], given["x_batch"], given["y_batch"])
    np.testing.assert_allclose(found, expected.sum(1, keepdim=True).detach().numpy(), rtol=1e-4, atol=1e-6)


def test_arguments(given: dict[str, Any]) -> None:
    call = (given["model"], given["x_batch"], given["y_batch"])
    x, y = torch.from_numpy(given["x_batch"]), torch.from_numpy(given["y_batch"])
    logit = VTranM(given["model"]).attribute(x, target=y, output="logit", attribute_to="pixels").numpy()
    assert np.array_equal(quantus_explain(VTranM, output="logit")(*call), logit)
    assert np.array_equal(quantus_explain(VTranM)(*call, output="logit"), logit)
    assert not np.allclose(quantus_explain(VTranM)(*call), logit)
    np.testing.assert_allclose(
        quantus_explain(VTranM, attribute_to="input", output="logit")(*call), logit, rtol=1e-5, atol=1e-6
    )
    modulation = {"k": 4, "tau": 2}
    explain = quantus_explain(ViTAGradCAM, constructor=modulation)
    expected = ViTAGradCAM(given["model"], **modulation).attribute(x, target=y, attribute_to="pixels")
    assert np.array_equal(explain(*call), expected.numpy())
    assert not np.array_equal(explain(*call), quantus_explain(ViTAGradCAM)(*call))
    assert quantus_explain(VTranM)(ViTA(given["model"]), *call[1:]).shape == (4, 1, 32, 32)


def test_any_form_dtype_and_mode(given: dict[str, Any]) -> None:
    explain = quantus_explain(VTranM)
    x, y = given["x_batch"], given["y_batch"]
    expected = explain(given["model"], x, y)
    double = explain(copy.deepcopy(given["model"]).double(), x, y)
    assert double.dtype == np.float32
    np.testing.assert_allclose(double, expected, rtol=1e-3, atol=1e-5)
    assert np.isfinite(explain(copy.deepcopy(given["model"]).bfloat16(), x, y)).all()
    assert np.array_equal(explain(given["model"], torch.from_numpy(x), torch.from_numpy(y)), expected)
    assert np.array_equal(explain(given["model"], x.tolist(), y[:, None].tolist()), expected)
    with torch.no_grad():
        assert np.array_equal(explain(given["model"], x, y), expected)
        assert quantus_explain(Saliency)(given["model"], x, y).shape == (4, 1, 32, 32)


def test_has_a_repr_and_can_be_pickled(given: dict[str, Any]) -> None:
    explain = quantus_explain(ViTAGradCAM, {"k": 4}, internal_batch_size=2)
    assert repr(explain) == "quantus_explain(ViTAGradCAM, constructor={'k': 4}, internal_batch_size=2)"
    again = pickle.loads(pickle.dumps(explain))
    assert again == explain
    call = (given["model"], given["x_batch"], given["y_batch"])
    assert np.array_equal(again(*call), explain(*call))


def test_mprt_explains_the_randomised_copy(given: dict[str, Any]) -> None:
    seen: list[tuple[int, np.ndarray]] = []
    plain = quantus_explain(VTranM)

    def explain(model: torch.nn.Module, **kwargs: Any) -> np.ndarray:
        found = plain(model=model, **kwargs)
        seen.append((id(model), found))
        return found

    weights = {name: tensor.clone() for name, tensor in given["model"].state_dict().items()}
    scores = quantus.MPRT(disable_warnings=True)(**given, explain_func=explain)
    original = plain(given["model"], given["x_batch"], given["y_batch"])
    others = [found for model, found in seen if model != id(given["model"])]
    assert len(others) > 5
    assert not any(np.allclose(found, original) for found in others)
    assert np.allclose(scores["original"], 1, atol=1e-5)
    assert max(np.max(values) for name, values in scores.items() if name != "original") < 0.99
    assert all(torch.equal(tensor, weights[name]) for name, tensor in given["model"].state_dict().items())
    # what the class guards against: built once, a method explains the original for ever
    built = VTranM(given["model"])
    silent = quantus_explain(lambda model: built)
    last = quantus.MPRT(disable_warnings=True, return_last_correlation=True)
    assert np.allclose(last(**given, explain_func=silent), 1, atol=1e-5)
    assert not np.allclose(last(**given, explain_func=plain), 1, atol=0.05)


@pytest.mark.parametrize("method", [VTranM, AttnLRP, ViTAGradCAM, Saliency])
def test_in_metrics_of_quantus(method: Any, given: dict[str, Any]) -> None:
    explain = quantus_explain(method)
    spoken = explain(given["model"], given["x_batch"], given["y_batch"]).any((1, 2, 3))  # Grad-CAM may be silent
    assert spoken.sum() >= 2
    masks = np.zeros((4, 1, 32, 32), dtype=int)
    masks[..., 8:24, 8:24] = 1
    quiet = {"disable_warnings": True}
    for metric, call in [
        (quantus.PixelFlipping(features_in_step=512, **quiet), {}),
        (quantus.MaxSensitivity(nr_samples=2, **quiet), {}),
        (quantus.RandomLogit(num_classes=5, **quiet), {}),
        (quantus.EfficientMPRT(**quiet), {}),
        (quantus.PointingGame(**quiet), {"s_batch": masks}),
        (quantus.RelevanceMassAccuracy(**quiet), {"s_batch": masks}),
        (quantus.RelevanceRankAccuracy(**quiet), {"s_batch": masks}),
        (quantus.Sparseness(**quiet), {}),
    ]:  # fmt: skip
        scores = metric(**given, explain_func=explain, device="cpu", **call)
        assert len(scores) == 4
        assert np.isfinite(np.asarray(scores, dtype=float)[spoken]).all()


def test_bad_input_is_named(given: dict[str, Any]) -> None:
    call = (given["model"], given["x_batch"], given["y_batch"])
    with pytest.raises(TypeError, match=r"method: a class or a function.*not VTranM; pass VTranM"):
        quantus_explain(VTranM(given["model"]))
    with pytest.raises(ValueError, match="target: Quantus provides the classes"):
        quantus_explain(VTranM, target=3)
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=r"quantus_explain\(broken, .*NaN or infinite values for images \[2\]"):
            quantus_explain(broken, value=value)(*call)
    with pytest.raises(ValueError, match=r"returns \(4, 3, 16, 16\) for images \(4, 3, 32, 32\)"):
        quantus_explain(broken, value=1.0, shape=16)(*call)
    with pytest.raises(ValueError, match=r"returns \(4, 1, 4, 4\)"):
        quantus_explain(lambda model: LayerGradCam(model, model.patch_embed.proj))(*call)
    with pytest.raises(TypeError, match="unexpected keyword"):
        quantus_explain(VTranM, nonsense=1)(*call)


def test_maps_that_quantus_rejects(given: dict[str, Any]) -> None:
    maps = quantus_explain(VTranM)(given["model"], given["x_batch"], given["y_batch"])
    metric = quantus.Sparseness(disable_warnings=True)
    for bad in (-1 - np.abs(maps), 0 * maps, 0 * maps + 0.5):
        with pytest.raises(AssertionError):
            metric(**given, a_batch=bad)
    some = maps.copy()
    some[0], some[1] = 0, -1 - np.abs(maps[1])
    assert len(metric(**given, a_batch=some)) == 4
