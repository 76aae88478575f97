"""Every method on token ids: padding and what follows the explained position do not matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import captum_astro
from captum_astro import (
    TokenGradCAM,
    TransformerMM,
    UnsupportedModelError,
    VTranM,
    check,
    explainers,
)
from captum_astro.models.astromorphic_text import AstromorphicLanguageModel, AstromorphicTextClassifier
from tests.comparing import assert_close
from tests.libraries import NARROW

METHODS = [e.method for e in explainers() if e.name not in NARROW]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
NONLINEARITIES = ["inside", "outside", "none"]
SIZE: dict[str, Any] = {"vocabulary": 50, "dim": 24, "num_heads": 3, "depth": 2, "length": 16}
UNCUT = {name: {"relu_attributions": False} for name in ("AttentionGradCAM", "TokenGradCAM", "TokenGradCAMPlusPlus")}
UNCUT |= {f"ViTA{name[5:]}": given for name, given in UNCUT.items() if name.startswith("Token")}


def _drawn(model: Any) -> Any:
    torch.manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.2 * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        if model.padding_index is not None:
            model.embed.weight[model.padding_index] = 0
    return model


def _classifier(nonlinearity: str = "inside", **options: Any) -> Any:
    return _drawn(AstromorphicTextClassifier(num_classes=3, nonlinearity=nonlinearity, **(SIZE | options)))


def _language_model(nonlinearity: str = "inside", **options: Any) -> Any:
    return _drawn(AstromorphicLanguageModel(nonlinearity=nonlinearity, **(SIZE | options)))


def _texts() -> torch.Tensor:
    ids = torch.randint(1, 50, (3, 12), generator=torch.Generator().manual_seed(1))
    ids[1, 8:] = 0
    return ids


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_the_identity_check(nonlinearity: Any) -> None:
    for model in (
        _classifier(nonlinearity),
        _language_model(nonlinearity),
        _classifier(attention="softmax"),
        _language_model(attention="softmax"),
        _classifier(nonlinearity, padding_index=None, output_projection=True),
    ):
        report = check(model, _texts())
        assert report.ok, report
        assert max(stage.error for stage in report.stages) <= 1e-10


@pytest.mark.parametrize("name", NARROW)
def test_methods_that_are_not_defined_name_those_that_are(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"TransformerMM|VTranM"):
        getattr(captum_astro, name)(_classifier()).attribute(_texts(), target=1)


@every_method
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.one_in(2)
def test_a_classifier(method: Any, nonlinearity: Any) -> None:
    model, ids = _classifier(nonlinearity), _texts()
    given = UNCUT.get(method.__name__, {})
    explain = method(model).attribute
    together = explain(ids, target=torch.tensor([0, 1, 2]), **given)
    assert together.shape == ids.shape
    assert together.dtype == torch.float64
    assert together.any()
    assert_close(explain(ids, target=[0, 1, 2], internal_batch_size=1, **given), together)
    for i in range(3):
        assert_close(explain(ids[i : i + 1], target=i, **given)[0], together[i])
    assert (together[1, 8:] == 0).all()
    assert_close(explain(ids[1:2, :8], target=1, **given)[0], together[1, :8])
    (one,) = explain((ids,), target=[0, 1, 2], attribute_to="tokens", **given)
    assert_close(one, together)


@every_method
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_a_language_model(method: Any, nonlinearity: Any) -> None:
    model, ids = _language_model(nonlinearity), _texts()
    given = UNCUT.get(method.__name__, {})
    explain = method(model).attribute
    found = explain(ids, target=(5, 7), **given)
    assert found.shape == ids.shape
    assert found.any()
    assert (found[:, 6:] == 0).all()
    changed = ids.clone()
    changed[:, 6:] = 3
    assert torch.equal(explain(changed, target=(5, 7), **given), found)
    mixed = explain(ids, target=[(5, 7), (11, 2), (-12, 1)], **given)
    assert_close(mixed[0], found[0])
    assert_close(mixed[1], explain(ids[1:2], target=(11, 2), **given)[0])
    assert (mixed[2, 1:] == 0).all()


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_transformer_mm_by_formed_maps(nonlinearity: Any) -> None:
    """The read-out row of the product, with maps formed for every channel and entry."""
    model, ids = _classifier(nonlinearity), _texts()[:1]
    seen: list[Any] = []
    kept: list[torch.Tensor] = []
    from captum_astro.functional.astromorphic_effective import effective_attention

    handles = []
    for block in model.blocks:

        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            q, k, v = module.split_heads(args[0])
            places = module.position_keys(args[0].shape[1])
            options = {"scale": module.scale, "alpha": module.alpha, "nonlinearity": module.nonlinearity}
            seen.append(effective_attention(q, k, v, places, **options))
            kept.append(output)

        handles.append(block.attn.register_forward_hook(hook))
    gradients = torch.autograd.grad(model(ids)[0, 1], kept)
    for handle in handles:
        handle.remove()
    n = ids.shape[1]
    row = torch.full((n,), 1 / n, dtype=torch.float64)
    for attention, gradient in reversed(list(zip(seen, gradients, strict=True))):
        maps, values = attention.rows(0, n)[0], attention.values[0]
        of_heads = gradient[0].T.reshape(len(maps), -1, n).transpose(1, 2)
        of_maps = of_heads @ values.transpose(1, 2)
        row = row + row @ (of_maps * maps).clamp(min=0).mean(0)
    assert_close(TransformerMM(model).attribute(ids, target=1)[0], row.detach())


def test_contribution_map_of_a_text() -> None:
    model, ids = _classifier(), _texts()
    whole = VTranM(model).contribution_map(ids, target=1)
    assert whole.shape == (3, 12, 12)
    assert (whole[1, 8:] == 0).all()
    assert_close(whole[1, :8, :8], VTranM(model).contribution_map(ids[1:2, :8], target=1)[0])
    assert_close(whole[0].mean(0), VTranM(model).attribute(ids, target=1)[0])


def test_bad_input() -> None:
    model, ids = _classifier(), _texts()
    explain = VTranM(model).attribute
    for wrong in (ids.double(), ids[0], ids[:0], ids > 3):
        with pytest.raises(ValueError, match=r"Token ids must be integers \(B, n\)"):
            explain(wrong, target=1)
    for form in ("pixels", "grid"):
        with pytest.raises(ValueError, match=f"Text has no {form}"):
            explain(ids, target=1, attribute_to=form)
    with pytest.raises(AssertionError, match="one tensor of token ids"):
        explain([ids], target=1)
    with pytest.raises(IndexError, match="out of range"):
        explain(ids, target=3)
    with pytest.raises(ValueError, match="at most 16 tokens"):
        explain(torch.ones(1, 17, dtype=torch.long), target=1)
    language = TokenGradCAM(_language_model()).attribute
    with pytest.raises(IndexError, match="position 12 is out of range"):
        language(ids, target=(12, 1))
    with pytest.raises(AssertionError):
        language(ids, target=None)
    with pytest.raises((AssertionError, IndexError)):
        language(ids, target=3)
