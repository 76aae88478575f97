"""Captum's interface and tools, tested over every exported method."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from typing import Any, get_type_hints

import pytest
import torch
from captum.attr import NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from torch import nn

import captum_astro
from captum_astro import explainers
from tests.families import FAMILIES, build, images
from tests.libraries import NARROW, skip_undefined

METHODS = [explainer.method for explainer in explainers()]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
# a map whose negative values are cut off may be zero everywhere: compare what stands before the cut
CUT = ("TokenGradCAM", "TokenGradCAMPlusPlus", "ViTAGradCAM", "ViTAGradCAMPlusPlus")
UNCUT = {name: {"relu_attributions": False} for name in CUT}
# Grad-CAM++ divides by 2 g^2 + (sum A) g^3, LRP by sums of either sign: close to 0, they magnify rounding
ILL_CONDITIONED = {"TokenGradCAMPlusPlus", "ViTAGradCAMPlusPlus", "LRP", "TransformerAttribution"}
# what changes how a batch runs: pooling, biases, norms after the heads, several branches
MIXED = torch.tensor([1, 3, 0])


def _state(model: nn.Module) -> dict[str, Any]:
    """All state that a call might change."""
    return {
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), len(m._backward_pre_hooks))
            for m in model.modules()
        ],
        "flags": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "fused": [getattr(m, "fused_attn", None) for m in model.modules()],
        "keys": [sorted(vars(m)) for m in model.modules()],
        "weights": [t.clone() for t in model.state_dict().values()],
    }


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    plain = all(a[k] == b[k] for k in ("hooks", "flags", "modes", "fused", "keys"))
    tensors = all(
        (x is None and y is None) or torch.equal(x, y)
        for key in ("grad", "weights")
        for x, y in zip(a[key], b[key], strict=True)
    )
    return plain and tensors


@every_method
@pytest.mark.parametrize("name", [*FAMILIES, "swin_padded", "swin_odd", "swin_v2_dynamic", "swin_v2_cr_norms"])
@pytest.mark.one_in(6)
def test_batch_equals_single_images(method: Any, name: str) -> None:
    skip_undefined(method, build(name), x=images(name))
    uncut = UNCUT.get(method.__name__, {})
    rough = 2e-2 if method.__name__ in ILL_CONDITIONED else 5e-6
    for dtype, tolerance in ((torch.float64, 1e-9 if rough > 1e-5 else 1e-12), (torch.float32, rough)):
        model, x = build(name, dtype), images(name, dtype=dtype)
        explain = method(model).attribute
        together = explain(x, target=MIXED, **uncut)
        alone = torch.cat([explain(x[i : i + 1], target=int(MIXED[i]), **uncut) for i in range(3)])
        parts = explain(x, target=MIXED, internal_batch_size=2, **uncut)
        assert together.shape == x.shape
        assert together.dtype == x.dtype
        assert together.is_contiguous()
        scale = float(alone.abs().max())
        assert scale > 0
        for other in (together, parts):
            assert (other - alone).abs().max() <= tolerance * scale


@every_method
def test_under_no_grad_and_inference_mode(method: Any) -> None:
    model, x = build("cls"), images("cls")
    expected = method(model).attribute(x, target=1)
    assert not expected.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(method(model).attribute(x, target=1), expected)
    with torch.inference_mode():
        torch.testing.assert_close(method(model).attribute(x.clone(), target=1), expected)


@every_method
@pytest.mark.parametrize("error", ["AssertionError", "IndexError", "ValueError", "UnsupportedModelError"])
def test_the_docstring_names_each_error_once(method: Any, error: str) -> None:
    raised = method.attribute.__doc__.partition("Raises:\n")[2]
    assert raised.count(f"    {error}: ") == 1


@every_method
def test_captum_tools(method: Any) -> None:
    model, x = build("cls", torch.float32), images("cls", dtype=torch.float32)
    explain = method(model)
    noisy = NoiseTunnel(explain).attribute(x, target=MIXED, nt_samples=2, stdevs=0.0, nt_type="smoothgrad")
    torch.testing.assert_close(noisy, explain.attribute(x, target=MIXED))
    for kind in ("smoothgrad_sq", "vargrad"):
        assert NoiseTunnel(explain).attribute(x, target=1, nt_samples=2, nt_type=kind).shape == x.shape
    assert sensitivity_max(explain.attribute, x, target=1, n_perturb_samples=2).shape == (3,)

    def noise(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        step = torch.randn_like(inputs) * 0.01
        return step, inputs - step

    attributions = explain.attribute(x, target=1)
    assert infidelity(model, noise, x, attributions, target=1, n_perturb_samples=2).shape == (3,)
    assert explain.get_name() == method.__name__
    assert not explain.has_convergence_delta()


@every_method
@pytest.mark.parametrize("name", ["cls", "eva02", "map_pooling", "written_out"])
@pytest.mark.one_in(3)
def test_state_is_restored(method: Any, name: str) -> None:
    model, x = build(name), images(name)
    skip_undefined(method, model, x=x)
    next(model.parameters()).requires_grad_(False)
    model(x).sum().backward()
    model.blocks[1].attn.fused_attn = False
    x.requires_grad_(True)
    x.grad = torch.ones_like(x)
    before, random, kept = _state(model), torch.get_rng_state(), x.detach().clone()
    logits = model(x)
    method(model).attribute(x, target=1)
    with pytest.raises((IndexError, AssertionError)):
        method(model).attribute(x, target=99 if explainers()[METHODS.index(method)].needs_gradient else "x")
    handle = model.blocks[2].register_forward_pre_hook(lambda m, a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        method(model).attribute(x, target=1)
    handle.remove()
    assert _same(before, _state(model))
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, kept)
    assert x.requires_grad
    assert torch.equal(x.grad, torch.ones_like(x))
    assert torch.equal(model(x), logits)
    twin = copy.deepcopy(model)
    assert torch.equal(method(twin).attribute(x, target=1), method(model).attribute(x, target=1))
    pickle.dumps(model.state_dict())


@every_method
def test_train_mode_warns_and_changes_nothing(method: Any) -> None:
    model = build("hybrid")
    model.blocks[0].attn.proj_drop.p = 0.5
    model.train()
    before, random = _state(model), torch.get_rng_state()
    with pytest.warns(UserWarning, match="train mode"):
        method(model).attribute(images("hybrid"), target=1)
    assert _same(before, _state(model))
    assert torch.equal(random, torch.get_rng_state())


@every_method
def test_memory_stays_flat(method: Any) -> None:
    family = "cls" if method.__name__ in NARROW else "parallel_things"
    model, x = build(family), images(family)

    def tensors() -> int:
        gc.collect()
        return sum(torch.is_tensor(thing) for thing in gc.get_objects())

    explain = method(model).attribute
    for _ in range(3):
        explain(x, target=1)
    before = tensors()
    for _ in range(50):
        explain(x, target=1)
    assert tensors() <= before


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["cls", "eva02", "map_pooling", "differential"])
@pytest.mark.one_in(3)
def test_half_precision(method: Any, dtype: torch.dtype, name: str) -> None:
    skip_undefined(method, build(name), x=images(name))
    given: Any = {"target": 1, "attribute_to": "grid", **UNCUT.get(method.__name__, {})}
    exact = method(build(name)).attribute(images(name), **given)
    rough = method(build(name, dtype)).attribute(images(name, dtype=dtype), **given)
    assert rough.dtype == dtype
    assert torch.isfinite(rough).all()
    if method.__name__ not in ILL_CONDITIONED:
        there = exact.flatten(1).abs().amax(1) > 0
        likeness = torch.cosine_similarity(rough.double().flatten(1), exact.flatten(1))
        assert (likeness[there] > 0.9).all()


@every_method
def test_two_threads_give_the_same_maps(method: Any) -> None:
    model, x = build("cls"), images("cls")
    expected = [method(model).attribute(x, target=t) for t in range(4)]
    got: dict[int, torch.Tensor] = {}

    def work(start: int) -> None:
        for _ in range(5):
            for t in (start, start + 1):
                got[t] = method(model).attribute(x, target=t)
                model(x)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for t in range(4):
        torch.testing.assert_close(got[t], expected[t])
    assert all(parameter.requires_grad for parameter in model.parameters())


@every_method
def test_wrappers(method: Any) -> None:
    model, x = build("cls"), images("cls")
    expected = method(model).attribute(x, target=1, attribute_to="tokens")

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, image: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
            return self.inner(image * 2 - 1 + shift)

    def tokens(wrapped: nn.Module, image: torch.Tensor, **given: Any) -> torch.Tensor:
        return method(wrapped).attribute(image, target=1, attribute_to="tokens", **given)

    torch.testing.assert_close(tokens(nn.DataParallel(model), x), expected)
    torch.testing.assert_close(tokens(nn.Sequential(model), x), expected)
    if method in (captum_astro.BeyondIntuition, captum_astro.ViTCX):
        return  # its path starts, or its masks end, where the caller's values are 0
    torch.testing.assert_close(tokens(Normalised(), (x + 1) / 2), expected)
    torch.testing.assert_close(tokens(Normalised(), x / 2, additional_forward_args=1.0), expected)


def test_every_method_is_exported_with_its_metadata() -> None:
    for explainer in explainers():
        assert getattr(captum_astro, explainer.name) is explainer.method
        assert explainer.source
        assert explainer.family
        assert "Example:" in (explainer.method.__doc__ or "")


def _own(kind: type) -> list[Any]:
    hints = {(e.method, n): h for e in explainers() for n, h in get_type_hints(e.method.attribute).items()}
    return [
        pytest.param(method, name, id=f"{method.__name__} {name}") for (method, name), h in hints.items() if h is kind
    ]


@pytest.mark.parametrize(("method", "option"), _own(bool))
@pytest.mark.parametrize("value", ["no", 1, None])
def test_a_flag_is_true_or_false(method: Any, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be true or false, not {value!r}\\.$"):
        method(build("cls")).attribute(images("cls"), target=1, **{option: value})


@pytest.mark.parametrize(("method", "option"), _own(float) + _own(int))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", True, None])
def test_a_number_is_finite(method: Any, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{option} must be a (whole )?number( of at least \d+)?, not {value!r}\.$"):
        method(build("cls")).attribute(images("cls"), target=1, **{option: value})
