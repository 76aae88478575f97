"""ConservativeLRP against its rules one by one, on every family, and its conservation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_astro import ConservativeLRP
from tests.attr import reference
from tests.families import build, images


@pytest.mark.parametrize("name", reference.TRACED)
@pytest.mark.one_in(2)
def test_agrees_with_the_rules_one_by_one(name: str) -> None:
    reference.agree_with_gradient_rules(ConservativeLRP, name, attn=False)


def _homogeneous(name: str) -> nn.Module:
    model = build(name)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith("bias"):
                parameter.zero_()
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.GELU):
            parent = model.get_submodule(path.rpartition(".")[0])
            setattr(parent, path.rpartition(".")[2], nn.ReLU())
    return model


@pytest.mark.parametrize("name", ["cls", "registers", "average", "distilled", "parallel_things", "relative_position"])
def test_conservative_lrp_conserves_relevance_without_biases(name: str) -> None:
    model, x = _homogeneous(name), images(name)
    tokens = ConservativeLRP(model).attribute(x, target=reference.TARGET, attribute_to="tokens")
    torch.testing.assert_close(tokens.sum(1), model(x)[:, reference.TARGET].detach(), rtol=1e-8, atol=0)
