"""Models of other libraries under LoRA, with computed weights, compiled, and in half precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from captum_astro import LRP, AttentionRollout, TokenGradCAM, UnsupportedModelError, VTranM
from tests.comparing import assert_close
from tests.families import images
from tests.layouts import test_torchvision
from tests.libraries import without_relu


def _torchvision() -> nn.Module:
    return test_torchvision._vit_from_timm()


def _huggingface() -> nn.Module:
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    from tests.layouts.test_huggingface import _vit

    return _vit()


def _open_clip() -> nn.Module:
    pytest.importorskip("open_clip", reason="the extra 'open_clip' is not installed")
    from tests.layouts.test_open_clip import _form

    return _form("custom, plain")


# a model, its attention's projections and feed-forward layers, and its attention module
MODELS: dict[str, tuple[Callable[[], nn.Module], list[str], str]] = {
    "torchvision": (_torchvision, ["out_proj", "mlp.0", "mlp.3"], "self_attention"),
    "huggingface": (_huggingface, ["q_proj", "v_proj", "o_proj", "fc1", "fc2"], "v_proj"),
    "open_clip": (_open_clip, ["out_proj", "c_fc", "c_proj"], "out_proj"),
}
every_model = pytest.mark.parametrize("name", MODELS)


def _lora(model: nn.Module, targets: list[str]) -> Any:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False)
    return peft.get_peft_model(model, config).double().eval()


@every_model
@pytest.mark.parametrize("method", [VTranM, LRP, TokenGradCAM, AttentionRollout], ids=lambda m: m.__name__)
def test_lora_is_explained_as_the_merged_model(method: Any, name: str) -> None:
    build, targets, _ = MODELS[name]
    adapted, x, options = _lora(build(), targets), images("cls", 2), without_relu(method)
    merged = copy.deepcopy(adapted).merge_and_unload()
    assert not torch.allclose(_scores(merged, x), _scores(build(), x))
    found = method(adapted).attribute(x, target=1, **options)
    assert_close(found, method(merged).attribute(x, target=1, **options))


def _scores(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    output = model(x)
    return output if isinstance(output, torch.Tensor) else output.logits


def test_an_adapter_of_pytorchs_attention_is_to_be_merged() -> None:
    adapted, x = _lora(_torchvision(), ["self_attention"]), images("cls", 1)
    with pytest.raises(UnsupportedModelError, match=r"merge_and_unload\(\)"):
        VTranM(adapted)
    assert VTranM(adapted.merge_and_unload()).attribute(x, target=1).shape == x.shape


@every_model
def test_computed_weights(name: str) -> None:
    build, targets, _ = MODELS[name]
    plain, x = build(), images("cls", 2)
    computed = copy.deepcopy(plain)
    for path, module in list(computed.named_modules()):
        if path.endswith(targets[-1]):
            parametrizations.weight_norm(module)
    assert any("parametrizations" in path for path, _ in computed.named_modules())
    assert_close(VTranM(computed).attribute(x, target=1), VTranM(plain).attribute(x, target=1))


@every_model
def test_compiled(name: str) -> None:
    model, x = MODELS[name][0](), images("cls", 2)
    compiled = torch.compile(model, backend="eager")
    assert_close(VTranM(compiled).attribute(x, target=1), VTranM(model).attribute(x, target=1))


@every_model
def test_half_precision(name: str) -> None:
    model, x = MODELS[name][0](), images("cls", 2)
    exact = VTranM(model).attribute(x, target=1).flatten(1)
    found = VTranM(model.bfloat16()).attribute(x.bfloat16(), target=1)
    assert found.dtype == torch.bfloat16
    assert torch.cosine_similarity(found.flatten(1).double(), exact).min() > 0.97


@every_model
def test_model_and_images_are_unchanged(name: str) -> None:
    """And the model can be explained in inference mode."""
    model, x = MODELS[name][0](), images("cls", 2)
    kinds, before, weights = [type(m) for m in model.modules()], x.clone(), copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        first = VTranM(model).attribute(x.clone(), target=1)
    assert torch.equal(VTranM(model).attribute(x, target=1), first)
    assert torch.equal(x, before)
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
