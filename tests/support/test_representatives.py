"""A small model of every class that timm has: what the sweep found still holds, and maps are the right way round."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError, explainers
from captum_astro.attr._base import TokenAttribution
from captum_astro.attr.explainers import explainers_named
from captum_astro.capture.probe import GAINS, _local_weights
from captum_astro.support.form import Form
from captum_astro.support.outcome import attribution, largest, outcomes
from captum_astro.support.sweep import METHODS
from tests.support.representatives import representatives
from tests.support.test_geometry import WAYS

RANKS = ("failed", "refused", "approximate", "exact")
# what may not change where the image does: these divide by sums close to 0, cut off the map at 0, or have the
# probability of the whole image in every value
UNSTEADY = {"LRP", "TransformerAttribution", "AttentionGradCAM", "ViTCX"}
# weights of channels on 2 x 2 places; squeeze and excitation, in a model whose upper left corner has nearly all
# relevance: input times gradient changes mostly there, too
UNSTEADY_ON = {("cpubone_nano", "TokenGradCAMPlusPlus"), ("shvit_s1", "ConservativeLRP")}

# whose weights, as `_local` sets them, keep places apart on the way to the map; `test_geometry` has all methods on
# smaller models, and `WAYS` on most of these
STEADY = (
    "coat_tiny", "convit_tiny", "cpubone_nano", "cs3darknet_focus_s", "deit_tiny_distilled_patch16_224",
    "efficientformerv2_s0", "efficientvim_m1", "efficientvit_b0", "eva02_tiny_patch14_224", "fasternet_t0",
    "fastvit_t8", "gmlp_ti16_224", "hgnetv2_b0", "inception_next_atto", "lcnetv2_small", "pit_ti_224", "pvt_v2_b0",
    "repvit_m1", "rexnet_100", "shvit_s1", "swiftformer_xs",
)  # fmt: skip


@pytest.mark.parametrize("kind", representatives())
@pytest.mark.one_in(5)
def test_what_the_sweep_found_holds(kind: dict[str, Any]) -> None:
    form = Form.of(kind)
    found = outcomes(form.build(), form.images(), explainers_named(METHODS).values())
    assert not [one for one in found if RANKS.index(one.status) < RANKS.index(kind["status"][one.method])]
    assert "failed" not in {one.status for one in found}


@pytest.mark.parametrize("kind", representatives(*STEADY))
@pytest.mark.one_in(3)
def test_a_changed_corner_changes_the_map_there(kind: dict[str, Any]) -> None:
    """With weights that keep places apart. A map that is turned or mirrored changes in another corner."""
    form = Form.of(kind)
    model, x = _local(form.build()), form.images().double()
    images = torch.cat([x, _inverted(x, 1), _inverted(x, 2)])  # the upper right, the lower left corner
    target = largest(model(x).expand(3, -1))  # one target, so that only the images differ
    for explainer in explainers():
        status = kind["status"].get(explainer.name, kind["status"]["VTranM"])
        row = issubclass(explainer.method, TokenAttribution)
        if explainer.name in {*WAYS, *UNSTEADY} or (kind["tried"], explainer.name) in UNSTEADY_ON:
            continue
        if status == "refused" and explainer.family != "gradient":
            continue
        if row and status == "approximate":  # a rule may attribute a change to another place
            continue
        try:
            found = attribution(explainer.method, model, images, target)
        except UnsupportedModelError:
            continue
        right, left = (_share(one - found[0]) for one in found[1:])
        turned = [right[2] + left[1], right[3] + left[0], right[0] + left[3]]
        # where attention shares everything among all places, as in LeViT, all corners change alike
        assert max(turned) < 1.5 * (right[1] + left[2]), (explainer.name, right, left)


def _local(model: nn.Module) -> nn.Module:
    model = model.double()
    weights = _local_weights(model, GAINS[1], torch.float64)
    with torch.no_grad():
        for path, weight in (*model.named_parameters(), *model.named_buffers()):
            if path in weights:
                weight.copy_(weights[path])
    return model


def _quarters(x: torch.Tensor) -> list[torch.Tensor]:
    """Views of the four corners: upper left, upper right, lower left, lower right."""
    return [part for half in x.tensor_split(2, -2) for part in half.tensor_split(2, -1)]


def _inverted(x: torch.Tensor, corner: int) -> torch.Tensor:
    """Images of which one corner is inverted."""
    changed = x.clone()
    _quarters(changed)[corner].neg_().add_(1)
    return changed


def _share(change: torch.Tensor) -> list[float]:
    """How much of a change is in each corner, from 0 to 1."""
    return [float(part.abs().sum() / change.abs().sum()) for part in _quarters(change)]
