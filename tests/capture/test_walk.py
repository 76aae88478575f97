"""Models that a pass rejects instead of returning a wrong map."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from captum_astro import RawAttention, TokenGradCAM, UnsupportedModelError, VTranM, check
from tests.families import SMALL, build, images


class Peg(VisionTransformer):
    """A convolution over the patch tokens after the first block, not visible at the class token."""

    def forward_features(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        x = self._pos_embed(self.patch_embed(x))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 0:
                patches = x[:, 1:].transpose(1, 2).reshape(len(x), -1, 4, 4)
                x = torch.cat([x[:, :1], x[:, 1:] + patches.roll(1, 2).flatten(2).transpose(1, 2)], 1)
        return self.norm(x)


class Odd(AttentionPoolLatent):
    """A pooling head that reads its tokens in reverse order."""

    def forward(self, x: torch.Tensor, attn_mask: Any = None) -> torch.Tensor:
        return super().forward(x.flip(1) * 2)


def test_changes_outside_the_class_token_are_detected() -> None:
    model = Peg(**SMALL).eval().double()
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0\.mlp is something other"):
        VTranM(model).attribute(images("cls"), target=1)


def test_pooling_is_compared() -> None:
    model = build("map_pooling")
    model.attn_pool.__class__ = Odd
    assert not check(model, images("map_pooling")).ok
    with pytest.raises(UnsupportedModelError, match="value projection of attn_pool"):
        VTranM(model).attribute(images("map_pooling"), target=1)
    model = build("average")
    weights = torch.linspace(0, 1, 16, dtype=torch.float64)[:, None]
    model.pool = lambda x, pool_type=None: (x * weights).sum(1)
    with pytest.raises(UnsupportedModelError, match="pooled vector"):
        VTranM(model).attribute(images("average"), target=1)


def test_train_mode_without_dropout_is_compared() -> None:
    model = build("cls").train()
    model.blocks[1].mlp.register_forward_hook(lambda m, a, o: o * 3)
    assert check(model, images("cls")).ok  # what the layer adds is measured, whatever it is
    model.blocks[1].attn.proj.register_forward_hook(lambda m, a, o: o * 3)
    with pytest.raises(UnsupportedModelError, match=r"blocks\.1\.attn is something other"):
        VTranM(model).attribute(images("cls"), target=1)


def test_adapters_on_the_values_are_detected() -> None:
    model = build("cls")
    model.blocks[1].attn.qkv.register_forward_hook(lambda m, a, o: o + a[0].repeat(1, 1, 3) * 0.3)
    with pytest.raises(UnsupportedModelError, match=r"value projection of blocks\.1\.attn"):
        VTranM(model).attribute(images("cls"), target=1)


@pytest.mark.parametrize("where", ["whole", "inside", "module", "blocks", "wrapped blocks"])
def test_compiled_models(where: str) -> None:
    model, x = build("cls"), images("cls")
    expected = VTranM(model).attribute(x, target=1)
    compiled: nn.Module = model
    if where == "whole":
        compiled = torch.compile(model, backend="eager")
    elif where == "inside":
        compiled = nn.Sequential(torch.compile(model, backend="eager"))
    elif where == "module":
        model.compile(backend="eager")
    elif where == "blocks":
        for block in model.blocks:
            block.compile(backend="eager")
    else:
        for i, block in enumerate(model.blocks):
            model.blocks[i] = torch.compile(block, backend="eager")
    torch.testing.assert_close(VTranM(compiled).attribute(x, target=1), expected)
    assert check(compiled, x).ok


def test_fully_masked_queries() -> None:
    model, x = build("cls"), images("cls")
    mask = torch.ones(17, 17, dtype=torch.bool)
    mask[5] = False
    for method in (VTranM, RawAttention):
        assert torch.isfinite(method(model).attribute(x, target=1, additional_forward_args=(mask,))).all()


def test_certain_models_have_the_same_direction() -> None:
    maps = []
    for margin in (5.0, 30.0, 60.0):
        model = build("cls")
        with torch.no_grad():
            model.head.bias[1] += margin
        row = VTranM(model).attribute(images("cls"), target=1, aggregation=False).flatten(1)
        maps.append(row / row.norm(dim=1, keepdim=True))
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0])


def test_non_finite_values() -> None:
    model = build("cls")
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        VTranM(model).attribute(images("cls"), target=1)


def test_inference_parameters_are_rejected_before_anything_changes() -> None:
    with torch.inference_mode():
        model = build("cls")
    with pytest.raises(UnsupportedModelError, match="inference_mode"):
        VTranM(model).attribute(images("cls"), target=1)


class Wrapper(nn.Module):
    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.inner, self.kind = model, kind
        self.kept: list[torch.Tensor] = []
        model.blocks[0].register_forward_hook(lambda m, a, o: self.kept.append(o))

    def forward(self, x: torch.Tensor) -> Any:
        if self.kind == "early":
            self.kept.clear()
            self.inner(x)
            return self.kept.pop()[:, 0]
        if self.kind == "batch":
            return self.inner(torch.cat([x, x.flip(-1)])).view(2, len(x), -1).mean(0)
        return (self.inner(x),)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("early", UnsupportedModelError, "does not depend on the final tokens"),
        ("batch", UnsupportedModelError, "a wrapper changes the batch"),
        ("tuple", TypeError, "not a tuple"),
    ],
)
def test_wrappers_that_cannot_be_explained(kind: str, error: type[Exception], message: str) -> None:
    wrapped = Wrapper(build("cls"), kind)
    with pytest.raises(error, match=message):
        VTranM(wrapped).attribute(images("cls"), target=1)
    if kind == "tuple":
        with pytest.raises(error, match=message):
            TokenGradCAM(wrapped).attribute(images("cls"), target=1)


def test_autocast_does_not_affect_the_maths() -> None:
    model, x = build("cls", torch.float32), images("cls", dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rough = VTranM(model).attribute(x, target=1, attribute_to="tokens")
    exact = VTranM(model).attribute(x, target=1, attribute_to="tokens")
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(rough, exact).min() > 0.98


def test_grad_cam_in_two_threads_with_other_sizes() -> None:
    model = build("dynamic_rectangular")
    failures: list[Exception] = []

    def work(height: int, width: int) -> None:
        x = torch.randn(1, 3, height, width, dtype=torch.float64)
        for _ in range(20):
            try:
                TokenGradCAM(model).attribute(x, target=1, relu_attributions=False)
                model(x)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=size) for size in ((24, 40), (40, 32))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
