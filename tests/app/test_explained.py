from __future__ import annotations

import pytest
import timm
import torch

import captum_astro
from captum_astro.app.networks import Networks
from captum_astro.models.bundled import PLAIN
from tests.app.making import IMAGE, VITA, made


def test_maps_are_those_of_the_one_call(networks: Networks) -> None:
    found = made(networks, methods=("VTranM", "LRP"), against=8)
    model = timm.create_model(PLAIN, pretrained=True).eval()
    expected = captum_astro.explain(model, IMAGE, ["VTranM", "LRP"], [3, 8])
    for one, other in zip(found.results, expected, strict=True):
        assert torch.equal(one.attributions, other.attributions)
        assert (one.options, one.target) == (other.options, other.target)
    assert [target.index for target in found.targets] == [3, 8]
    assert found.grid == (16, 16)


def test_wishes_that_are_refused(networks: Networks) -> None:
    with pytest.raises(ValueError, match="No method is chosen"):
        made(networks, methods=())
    with pytest.raises(ValueError, match="The class 'cat': no class has that name"):
        made(networks, target="cat")
    for same in (3, "3"):
        with pytest.raises(ValueError, match="Class A and class B are both 3: choose another one, or no class B"):
            made(networks, against=same)
    with pytest.raises(ValueError, match="adds its own astrocytes"):
        made(networks, methods=("ViTAGradCAM",), vita=VITA)
