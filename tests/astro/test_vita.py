from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
import timm
import torch
from torch import nn

from captum_astro import (
    UnsupportedModelError,
    ViTA,
    ViTAGradCAM,
    check,
)
from tests.astro.making import MILD
from tests.families import build, images


@pytest.mark.parametrize("setting", [{"k": 0}, {"k": 2, "tau": 3}, {"alpha": 1, "beta": 1}, {"k": 1, "tau": 2}])
def test_the_identity_bit_for_bit(setting: dict[str, Any]) -> None:
    model, x = build("cls", torch.float32), images("cls", dtype=torch.float32)
    assert torch.equal(ViTA(model, **setting)(x), model(x))


def test_model_is_unchanged() -> None:
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


def test_state_is_restored_when_opening_fails() -> None:
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
    assert torch.equal(replica(x), expected)
    assert torch.equal(vita(x), expected)
    assert not model._forward_hooks


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


def test_bad_input() -> None:
    model = build("cls")
    with pytest.raises(ValueError, match="token must be 'auto'"):
        ViTA(model, token="first")
    with pytest.raises(ValueError, match="tau must be a whole number"):
        ViTA(model, tau=0)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        ViTA(model.forward)
    with pytest.raises(UnsupportedModelError, match="was not called: Eva reads its weight"):
        ViTA(build("eva"), layer="blocks.0.attn.qkv")(images("eva"))
    swin = timm.create_model("swin_tiny_patch4_window7_224").eval()
    with pytest.raises(UnsupportedModelError, match="token='mean'"):
        ViTA(swin, layer="layers.0.blocks.0.attn.proj", token="cls")(torch.rand(1, 3, 224, 224))
