"""Models of other libraries with timm's weights: what their maps are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError, explainers

every_method = pytest.mark.parametrize("method", [e.method for e in explainers()], ids=lambda m: m.__name__)


NARROW = (
    "AGCAM",
    "BeyondIntuition",
    "InFlow",
    "ViTCX",
)  # defined for some architectures only, and refused in words elsewhere


def skip_undefined(method: Any, *models: nn.Module, x: torch.Tensor) -> None:
    """Skip a test of a method that is not defined for these models: for all of them, because they compute the same."""
    refused = [found for model in models if method.__name__ in NARROW and (found := _refused(method(model), x))]
    if refused:
        # InFlow reads the class score of the mean of normalised tokens, which not every library's head gives
        alone = method.__name__ == "InFlow" and "class score of a mean of tokens" in refused[0]
        assert alone or len(refused) == len(models), f"{method.__name__} refuses only one of them: {refused}"
        pytest.skip(refused[0])


def _refused(explain: Any, x: torch.Tensor) -> str | None:
    try:
        explain.attribute(x[:1], target=1)
    except UnsupportedModelError as error:
        return str(error)
    return None


def without_relu(method: Any) -> dict[str, bool]:
    """Options with which a map of random weights is not zero."""
    return {"relu_attributions": False} if "GradCAM" in method.__name__ else {}


def renamed(tensors: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Tensors with every occurrence of some parts of their names replaced, in order."""
    found = {}
    for key, value in tensors.items():
        new = key
        for old, part in names.items():
            new = new.replace(old, part)
        found[new] = value
    return found


def split_qkv(tensors: Mapping[str, torch.Tensor], parts: tuple[str, str, str]) -> dict[str, torch.Tensor]:
    """timm's joint projections as three."""
    found = {}
    for key, value in tensors.items():
        if ".qkv." in key:
            found |= {key.replace("qkv", part): one for part, one in zip(parts, value.chunk(3), strict=True)}
        else:
            found[key] = value
    return found


def loaded(model: nn.Module, tensors: Mapping[str, torch.Tensor], unused: tuple[str, ...] = ()) -> nn.Module:
    """A model with these weights, all of them, in float64."""
    missing, unexpected = model.double().load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(key.endswith(unused) for key in missing), missing
    return model.eval()


def assert_same_maps(method: Any, timm: nn.Module, other: nn.Module, x: torch.Tensor) -> None:
    """Every pixel's relevance agrees with that of timm's model, for another class of each image."""
    skip_undefined(method, timm, other, x=x)
    options, classes = without_relu(method), list(range(len(x)))
    expected = method(timm).attribute(x, target=classes, **options)
    found = method(other).attribute(x, target=classes, **options)
    assert found.shape == x.shape
    assert expected.flatten(1).abs().amax(1).min() > 0
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()
