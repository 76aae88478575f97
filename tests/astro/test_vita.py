from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
import timm
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from torch import nn

from captum_astro import (
    LRP,
    AttnLRP,
    ConservativeLRP,
    TokenGradCAM,
    UnsupportedModelError,
    ViTA,
    ViTAGradCAM,
    VTranM,
    check,
    explainers,
)
from captum_astro.astro import AstrocyticLinear, Modulation
from captum_astro.functional.astrocyte import modulation_factors
from tests.families import FAMILIES, build, images

MILD: dict[str, Any] = {"k": 4, "tau": 2, "phi": 0.0, "beta": 0.3}  # both signs matter at every layer
# the fused qkv of BEiT and EVA is read without being called, out_proj serves two branches, rel_pos knows no image
UNUSABLE = ("rel_pos", "out_proj")


def _layers(name: str, model: nn.Module) -> list[str]:
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and path.startswith("blocks.0.")
        and not any(part in path for part in UNUSABLE)
        and not (path.endswith("qkv") and type(model).__name__ in ("Beit", "Eva"))
    ]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rescale", ["length", "moments", "none"])
def test_every_layer_of_every_family_passes_the_identity_check(name: str, rescale: Any) -> None:
    model, x = build(name), images(name)
    assert _layers(name, model)
    for layer in _layers(name, model):
        vita = ViTA(model, **MILD, layer=layer, rescale=rescale)
        assert not torch.equal(vita(x), model(x))
        report = check(vita, x)
        assert report.ok
        assert max(stage.error for stage in report.stages) <= 1e-10


@pytest.mark.parametrize("name", ["cls", "average", "registers", "eva02", "map_pooling", "post_norm", "differential"])
def test_the_output_is_that_of_a_model_with_the_layer_in_place(name: str) -> None:
    model, x = build(name), images(name)
    expected = copy.deepcopy(model)
    attention = expected.blocks[0].attn
    attention.proj = AstrocyticLinear(attention.proj, Modulation(**MILD), "mean" if name == "average" else "cls")
    if name == "map_pooling":
        attention.proj.token = "mean"
    torch.testing.assert_close(ViTA(model, **MILD)(x), expected(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("setting", [{"k": 0}, {"k": 2, "tau": 3}, {"alpha": 1, "beta": 1}, {"k": 1, "tau": 2}])
def test_the_identity_bit_for_bit(setting: dict[str, Any]) -> None:
    model, x = build("cls", torch.float32), images("cls", dtype=torch.float32)
    assert torch.equal(ViTA(model, **setting)(x), model(x))


def test_the_model_is_as_it_was() -> None:
    model, x = build("cls"), images("cls")
    before, keys = model(x), [sorted(vars(module)) for module in model.modules()]
    vita = ViTA(model)
    with vita as opened:
        assert opened is vita
        inside = model(x)
        with vita:  # twice is once
            assert torch.equal(model(x), inside)
        assert torch.equal(model(x), inside)
        assert torch.equal(vita(x), inside)
    assert not torch.equal(inside, before)
    with pytest.raises(AssertionError), vita:
        model(torch.rand(1, 3, 8, 8, dtype=torch.float64))
    assert torch.equal(model(x), before)
    assert torch.equal(vita(x), inside)
    assert keys == [sorted(vars(module)) for module in model.modules()]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_each_image_has_its_own_astrocytes() -> None:
    for name in ("cls", "average"):
        model, x = build(name), images(name)
        together = ViTA(model, **MILD)(x)
        alone = torch.cat([ViTA(model, **MILD)(x[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)


def test_copies() -> None:
    model, x = build("cls"), images("cls")
    vita = ViTA(model)
    expected = vita(x)
    assert torch.equal(copy.deepcopy(vita)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(vita))(x), expected)
    with vita:
        inside = copy.deepcopy(model)  # as Quantus does with the model that it is given
    assert torch.equal(inside(x), expected)
    assert not torch.equal(model(x), expected)
    other = ViTA(model)
    other.load_state_dict(vita.state_dict())
    assert torch.equal(other(x), expected)


@pytest.mark.parametrize("method", [VTranM, LRP, TokenGradCAM], ids=lambda m: m.__name__)
def test_a_copy_made_inside_is_the_modulated_model(method: Any) -> None:
    model, x = build("cls"), images("cls")
    vita = ViTA(model, **MILD)
    expected = method(vita).attribute(x, target=1)
    with vita:
        inside = copy.deepcopy(model)
        torch.testing.assert_close(method(inside).attribute(x, target=1), expected)
    torch.testing.assert_close(method(inside).attribute(x, target=1), expected)
    seen: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: seen.append(inside(x)))
    thread.start()
    thread.join()
    assert torch.equal(seen[0], vita(x))


def test_quantus_takes_it() -> None:
    import numpy as np
    import quantus

    model, x = build("cls", torch.float32).eval(), images("cls", dtype=torch.float32)
    vita = ViTA(model)
    assert not vita.training

    def explain(model: nn.Module, inputs: Any, targets: Any, **kwargs: Any) -> Any:
        target = torch.as_tensor(targets).long()
        return VTranM(model).attribute(torch.as_tensor(inputs), target=target, attribute_to="pixels").numpy()

    metric = quantus.MPRT(return_last_correlation=True, disable_warnings=True, display_progressbar=False)
    scores = metric(vita, x.numpy(), np.array([0, 1, 2]), explain_func=explain, explain_func_kwargs={})
    assert len(scores) == 3


def test_two_of_them() -> None:
    model, x = build("cls"), images("cls")
    inner = ViTA(model, **MILD)
    with pytest.raises(ValueError, match="is modulated already"):
        ViTA(inner)
    both = ViTA(inner, **MILD, layer="blocks.1.mlp.fc1")
    expected = both(x)
    assert not torch.equal(expected, inner(x))
    assert check(both, x).ok
    with inner, ViTA(model, **MILD, layer="blocks.1.mlp.fc1"):
        assert torch.equal(model(x), expected)
        assert check(model, x).ok
    with inner, pytest.raises(ValueError, match="by another ViTA that is open"):
        ViTA(model)(x)
    top = model(x).argmax(1)
    given = {"modulated_layer": "blocks.1.mlp.fc1", **MILD}
    expected = ViTAGradCAM(inner, **given).attribute(x, target=top)
    torch.testing.assert_close(ViTAGradCAM(inner, **given).attribute(x), expected)
    with inner:
        torch.testing.assert_close(ViTAGradCAM(model, **given).attribute(x), expected)


def test_nothing_stays_when_opening_fails() -> None:
    model, x = build("cls"), images("cls")
    vita, proj = ViTA(model), model.blocks[0].attn.proj
    model.blocks[0].attn.proj = nn.Identity()
    with pytest.raises(TypeError, match=r"blocks\.0\.attn\.proj is a Identity"):
        vita(x)
    model.blocks[0].attn.proj = proj
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    opened = vita.__enter__()
    failed: list[Exception] = []

    def close() -> None:
        try:
            opened.__exit__(None, None, None)
        except RuntimeError as error:
            failed.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert "in another thread" in str(failed[0])
    opened.__exit__(None, None, None)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_replicas_do_not_share_their_state() -> None:
    model, x = build("cls"), images("cls")
    vita = ViTA(model)
    expected = vita(x)
    with vita:
        replica = vita._replicate_for_data_parallel()
        replica._modules = dict(vita._modules)
        assert not replica._open
        assert not replica._images
    assert torch.equal(replica(x), expected)
    assert torch.equal(vita(x), expected)
    assert not model._forward_hooks


def test_a_layer_of_a_kind_of_its_own() -> None:
    class Adapted(nn.Linear):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return super().forward(tokens) + tokens.roll(1, -1)

    model, x = build("cls"), images("cls")
    attention = model.blocks[0].attn
    adapted = Adapted(24, 24).double()
    adapted.load_state_dict(attention.proj.state_dict())
    attention.proj = adapted
    expected = copy.deepcopy(model)
    expected.blocks[0].attn.proj = AstrocyticLinear(adapted, Modulation(**MILD))
    torch.testing.assert_close(ViTA(model, **MILD)(x), expected(x), rtol=1e-12, atol=1e-12)


def test_where_the_class_token_is_not_first() -> None:
    assert ViTA(timm.create_model("cait_xxs24_224"), layer="blocks.0.attn.proj").token == "mean"
    assert ViTA(build("cls")).token == ViTA(build("registers")).token == ViTA(build("eva02")).token == "cls"
    assert ViTA(build("average")).token == "mean"


def test_parts_called_one_by_one() -> None:
    torch.manual_seed(0)
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, window_size=7, num_classes=5).eval()
    x = torch.randn(2, 3, 56, 56)
    wrapper = nn.Sequential(nn.Identity(), swin)
    with ViTA(swin, phi=0.0):
        whole = swin(x)
        assert torch.equal(swin.forward_head(swin.forward_features(x)), whole)
    with ViTA(wrapper, phi=0.0):
        assert torch.equal(swin(x), whole)


def test_compiled_before() -> None:
    model, x = build("cls"), images("cls")
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    torch.testing.assert_close(ViTA(compiled)(x), ViTA(model)(x))


def test_other_threads_see_the_plain_model() -> None:
    model, x = build("cls"), images("cls")
    plain, seen = model(x), []
    vita = ViTA(model)
    expected = vita(x)

    def work() -> None:
        seen.append(model(x))
        seen.append(vita(x))

    with vita:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert torch.equal(model(x), expected)
    assert torch.equal(seen[0], plain)
    assert torch.equal(seen[1], expected)


@pytest.mark.parametrize("method", [e.method for e in explainers()], ids=lambda m: m.__name__)
@pytest.mark.parametrize("layer", ["blocks.0.attn.proj", "blocks.0.attn.qkv", "blocks.1.mlp.fc1"])
def test_every_method_explains_it(method: Any, layer: str) -> None:
    model, x = build("cls"), images("cls")
    vita = ViTA(model, **MILD, layer=layer)
    inner = {"modulated_layer": "blocks.2.mlp.fc2"} if method.__name__.startswith("ViTA") else {}
    plain = method(model, **inner).attribute(x, target=1)
    changed = method(vita, **inner).attribute(x, target=1)
    assert changed.shape == x.shape
    assert not torch.allclose(plain, changed)
    with vita:
        torch.testing.assert_close(method(model, **inner).attribute(x, target=1), changed)
    torch.testing.assert_close(method(model, **inner).attribute(x, target=1), plain)
    torch.testing.assert_close(method(nn.Sequential(nn.Identity(), vita), **inner).attribute(x, target=1), changed)


def test_methods_of_captum_explain_it() -> None:
    model, x = build("cls"), images("cls")
    vita = ViTA(model, **MILD)
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(vita(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(Saliency(vita).attribute(x, target=1), gradient.abs())
    assert IntegratedGradients(vita).attribute(x, target=1, n_steps=4).shape == x.shape
    noisy = NoiseTunnel(VTranM(vita)).attribute(x, target=1, nt_samples=2, stdevs=0.0)
    torch.testing.assert_close(noisy, VTranM(vita).attribute(x, target=1))


def test_propagation_conserves_through_the_rescaling() -> None:
    for rescale in ("length", "moments", "none"):
        vita = ViTA(build("cls"), **MILD, rescale=rescale)
        tokens = LRP(vita).attribute(images("cls"), target=1, attribute_to="tokens")
        torch.testing.assert_close(tokens.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-8, atol=0)


def test_gradient_rules_hold_the_rescaling_constant() -> None:
    """With factors and scale frozen, the layer is linear: the same as a model whose layer has them as weights."""
    model, x = build("cls").requires_grad_(False), images("cls", 1)
    seen: list[torch.Tensor] = []
    handle = model.blocks[0].attn.proj.register_forward_hook(lambda m, a, o: seen.extend([a[0], o]))
    model(x)
    handle.remove()
    factors = modulation_factors(seen[0][:, 0], Modulation(**MILD))

    class Frozen(nn.Module):
        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.linear = linear
            changed = linear(seen[0] * factors[:, None])
            self.scale = (seen[1].norm(dim=-1) / changed.norm(dim=-1)).detach()

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.linear(tokens * factors[:, None]) * self.scale[..., None]

    frozen = copy.deepcopy(model)
    frozen.blocks[0].attn.proj = Frozen(model.blocks[0].attn.proj)
    vita = ViTA(model, **MILD)
    for mode in (AttnLRP, ConservativeLRP):
        rules = mode(model)._mode
        leaf = x.clone().requires_grad_(True)
        with rules(frozen):
            score = frozen(leaf)[0, 1]
        (expected,) = torch.autograd.grad(score, leaf)
        torch.testing.assert_close(mode(vita).attribute(x, target=1), expected * x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("swin_tiny_patch4_window7_224", "layers.0.blocks.0.attn.proj"),
        ("vit_small_patch14_dinov2", "blocks.0.attn.proj"),
        ("swin_tiny_patch4_window7_224", "layers.1.blocks.1.mlp.fc1"),
    ],
)
def test_swin_and_dinov2(name: str, layer: str) -> None:
    torch.manual_seed(0)
    size = 224 if name.startswith("swin") else 70
    options = {} if name.startswith("swin") else {"img_size": size}
    model = timm.create_model(name, num_classes=7, **options).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    x = torch.randn(2, 3, size, size)
    vita = ViTA(model, layer=layer, phi=0.0)
    alone = torch.cat([vita(x[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(vita(x), alone, rtol=1e-3, atol=1e-4)
    assert not torch.equal(vita(x), model(x))
    assert ViTAGradCAM(model, modulated_layer=layer).attribute(x).shape == x.shape


def test_grad_cam_explains_the_class_of_the_plain_model() -> None:
    model, x = build("cls"), images("cls")
    top = model(x).argmax(1)
    assert not torch.equal(ViTA(model)(x).argmax(1), top)
    explain = ViTAGradCAM(model).attribute
    torch.testing.assert_close(explain(x), explain(x, target=top))
    torch.testing.assert_close(explain(x), TokenGradCAM(ViTA(model)).attribute(x, target=top))
    torch.testing.assert_close(explain(x, internal_batch_size=2), explain(x))
    named = ViTAGradCAM(model, "blocks.1.norm1", modulated_layer=model.blocks[1].mlp.fc1, k=4, tau=2)
    expected = TokenGradCAM(ViTA(model, k=4, tau=2, layer="blocks.1.mlp.fc1"), model.blocks[1].norm1)
    torch.testing.assert_close(named.attribute(x, target=2), expected.attribute(x, target=2))
    assert "cls" in repr(named.vita)


def test_bad_input() -> None:
    model, x = build("cls"), images("cls")
    with pytest.raises(ValueError, match=r"no layer 'blocks\.9.*attention projects by 'blocks\.0\.attn\.proj'"):
        ViTA(model, layer="blocks.9.attn.proj")
    with pytest.raises(ValueError, match="not one of VisionTransformer's"):
        ViTA(model, layer=nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"blocks\.0\.norm1 is a LayerNorm; astrocytes modulate"):
        ViTA(model, layer="blocks.0.norm1")
    with pytest.raises(ValueError, match="token is 'auto'"):
        ViTA(model, token="first")
    with pytest.raises(ValueError, match="tau is a whole number"):
        ViTA(model, tau=0)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        ViTA(model.forward)
    with pytest.raises(UnsupportedModelError, match="was not called: Eva reads its weight"):
        ViTA(build("eva"), layer="blocks.0.attn.qkv")(images("eva"))
    with pytest.raises(UnsupportedModelError, match="together with another branch"):
        VTranM(ViTA(build("parallel_fused_out"), layer="blocks.0.out_proj")).attribute(x, target=1)
    swin = timm.create_model("swin_tiny_patch4_window7_224").eval()
    assert ViTA(swin).layer == "layers.0.blocks.0.attn.proj"
    assert ViTA(build("parallel_things")).layer == "blocks.0.attns.0.attn.proj"
    with pytest.raises(ValueError, match=r"is not known\. Pass layer="):
        ViTA(timm.create_model("resnet18"))
    with pytest.raises(UnsupportedModelError, match="token='mean'"):
        ViTA(swin, layer="layers.0.blocks.0.attn.proj", token="cls")(torch.rand(1, 3, 224, 224))
    assert torch.equal(ViTA(nn.Sequential(model))(x), ViTA(model)(x))  # the layer of the model inside
