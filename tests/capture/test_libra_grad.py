"""LibraGrad against its rules one by one, its completeness, and the methods that use its gradients."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerGradientXActivation, Saliency
from timm.layers import RmsNorm
from torch import nn

from captum_astro import (
    LRP,
    AttnLRP,
    ConservativeLRP,
    LibraGrad,
    ProjectedFlow,
    TokenGradCAM,
    TransformerAttribution,
    UnsupportedModelError,
    explainers,
)
from captum_astro.capture.call import Call
from captum_astro.capture.conservation import conservation
from captum_astro.capture.gradient_rules import ConstantDecisions
from captum_astro.capture.guard import private
from captum_astro.capture.target import Target
from captum_astro.layouts.base import layout_for
from tests import twin_rules
from tests.attr import reference
from tests.families import FAMILIES, HIERARCHICAL, MIXED, _vit, build, images
from tests.hybrid_families import HYBRID
from tests.libraries import without_relu
from tests.staged_families import STAGED

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
TARGET = reference.TARGET
OWN_RULES = (LRP, AttnLRP, ConservativeLRP, TransformerAttribution, ProjectedFlow)


def _gradient(name: str, x: torch.Tensor) -> torch.Tensor:
    """What the rules make of the gradient at the image."""
    model = build(name)
    trace = twin_rules.Trace(model, x, layout_for(model).stages[0].stream.module)
    found: torch.Tensor = trace.back(TARGET, twin_rules.Balanced())[trace.image]
    return found


def _close(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("name", reference.TRACED)
@pytest.mark.one_in(2)
def test_gradients_agree_with_the_rules_one_by_one(name: str) -> None:
    x = images(name, 1)
    gradient = _gradient(name, x)
    libra = LibraGrad(build(name))
    _close(Saliency(libra).attribute(x, target=TARGET, abs=False), gradient)
    _close(InputXGradient(libra).attribute(x, target=TARGET), x * gradient)


@pytest.mark.parametrize("name", ["cls", "average", "eva02"])
def test_integrated_gradients(name: str) -> None:
    x, baseline = images(name, 1), torch.full_like(images(name, 1), 0.3)
    got = IntegratedGradients(LibraGrad(build(name))).attribute(
        x, baseline, target=TARGET, n_steps=2, method="riemann_middle"
    )
    one, other = (_gradient(name, baseline + (x - baseline) * part) for part in (0.25, 0.75))
    _close(got, (x - baseline) * (one + other) / 2)


@pytest.mark.parametrize("name", ["cls", "average"])
def test_token_grad_cam(name: str) -> None:
    """At the output of the first block, by this package's method and by Captum's."""
    x, model = images(name, 1), build(name)
    trace = twin_rules.Trace(model, x, model.blocks[1])
    gradient, tokens = trace.back(TARGET, twin_rules.Balanced())[trace.tokens][0], trace.values[trace.tokens][0]
    prefix = layout_for(model).num_prefix_tokens
    expected = torch.zeros(len(tokens) - prefix, dtype=torch.float64)
    for channel in range(tokens.shape[1]):
        expected += gradient[prefix:, channel].mean() * tokens[prefix:, channel]
    libra = LibraGrad(model)
    cam = TokenGradCAM(libra, libra.model.blocks[0])
    got = cam.attribute(x, target=TARGET, attribute_to="grid", relu_attributions=False)
    _close(got.flatten(), expected)
    products = LayerGradientXActivation(libra, libra.model.blocks[0]).attribute(x, target=TARGET)
    _close(products[0], gradient * tokens)


@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_are_the_models_own(name: str) -> None:
    model, x = build(name), images(name)
    libra = LibraGrad(model)
    expected = model(x)
    torch.testing.assert_close(libra(x), expected, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(libra(x), expected, rtol=1e-10, atol=1e-12)


# iFormer has a sigmoid that multiplies nothing, whose 1/2 is a constant that is not noted
EVERYWHERE = [*reference.TRACED, *HIERARCHICAL, *MIXED, *STAGED, "sam", "sam_plain_neck", "sam_rope"]
EVERYWHERE += [name for name in HYBRID if name != "iformer"]


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.one_in(3)
def test_image_and_constants_add_up_to_the_output(name: str) -> None:
    model, x = build(name), images(name, 1)
    with private(model) as replica:
        call = Call(replica.model, x, Target(TARGET))
        parts = conservation(call, lambda call: ConstantDecisions(call.model), True)
    assert parts.output == pytest.approx(model(x)[0, TARGET].item(), rel=1e-10)
    assert parts.pixels * parts.output == pytest.approx(
        InputXGradient(LibraGrad(model)).attribute(x, target=TARGET).sum().item(), rel=1e-9
    )
    assert parts.rest == pytest.approx(0, abs=1e-9 * max(1, abs(parts.pixels), abs(parts.constants)))


def test_the_model_is_not_touched() -> None:
    model, x = build("cls").requires_grad_(True), images("cls")
    libra = LibraGrad(model)
    InputXGradient(libra).attribute(x, target=TARGET)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    for module in (*model.modules(), *libra.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    with torch.no_grad():
        model.head.bias += 1
    torch.testing.assert_close(libra(x), model(x))  # the weights are the same


@pytest.mark.filterwarnings("ignore:.* gives a map that is zero everywhere")
@pytest.mark.parametrize("explainer", [e for e in explainers() if e.method not in OWN_RULES], ids=lambda e: e.name)
def test_methods_of_this_package_use_its_gradients(explainer: Any) -> None:
    model, x = build("cls"), images("cls", 1)
    options = without_relu(explainer.method)
    plain, balanced = (explainer.method(m).attribute(x, target=TARGET, **options) for m in (model, LibraGrad(model)))
    assert balanced.isfinite().all()
    read = explainer.needs_gradient and explainer.family != "perturbation"  # whose gradients only find places
    assert (not torch.allclose(balanced, plain, rtol=1e-3)) == read


@pytest.mark.parametrize("method", [*OWN_RULES, LibraGrad])
def test_rules_of_two_methods_are_not_mixed(method: Any) -> None:
    libra, x = LibraGrad(build("cls")), images("cls")
    with pytest.raises(UnsupportedModelError, match="LibraGrad has propagation rules of its own"):
        method(libra)(x) if method is LibraGrad else method(libra).attribute(x, target=TARGET)


def test_an_operation_without_a_rule_is_refused() -> None:
    model = build("cls")
    model.norm_pre = nn.LogSoftmax(-1)
    with pytest.raises(UnsupportedModelError, match="log_softmax has no propagation rule"):
        InputXGradient(LibraGrad(model)).attribute(images("cls"), target=TARGET)


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        LibraGrad(lambda x: x)
    with torch.inference_mode():
        model = build("cls")
    with pytest.raises(UnsupportedModelError, match=r"loaded under torch\.inference_mode"):
        LibraGrad(model)


def test_copies_keep_its_gradients() -> None:
    libra, x = LibraGrad(build("cls")), images("cls")
    expected = InputXGradient(libra).attribute(x, target=TARGET)
    for same in (copy.deepcopy(libra), pickle.loads(pickle.dumps(libra))):
        torch.testing.assert_close(InputXGradient(same).attribute(x, target=TARGET), expected)


def test_threads_share_one() -> None:
    """Its norms are seen by hooks, which belong to one call at a time."""
    libra, found = LibraGrad(_vit(norm_layer=RmsNorm).double().eval()), {}
    expected = [InputXGradient(libra).attribute(images("cls", 1), target=target) for target in range(4)]

    def explain(target: int) -> None:
        for _ in range(5):
            found[target] = InputXGradient(libra).attribute(images("cls", 1), target=target)

    threads = [threading.Thread(target=explain, args=(target,)) for target in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for target in range(4):
        assert torch.equal(found[target], expected[target])
