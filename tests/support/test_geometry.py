"""Maps of every class of models that timm has lie where the model looks: none is turned, mirrored or shifted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.attr.explainers import Explainer, explainers_named
from captum_astro.capture.probe import GAINS, _local_weights
from captum_astro.support.form import Form
from captum_astro.support.outcome import attribution, largest
from tests.support.representatives import representatives

_POSITIONS = re.compile("pos_emb|rel_pos|patch_pos|pixel_pos|pos_proj|attention_biases|relative_position_bias")
_MIXERS = re.compile(r"\b(attn|self_attn|token_mixer|mixer)\b")
Move = Callable[[torch.Tensor], torch.Tensor]
CORNERS = (0, 1, 2, 3)  # as in `_quarters`; each turn and each reflection exchanges some of them
TURNED: dict[str, Move] = {
    "transposed": lambda x: x.mT,
    "transposed at the other diagonal": lambda x: x.flip(-1, -2).mT,
    "mirrored": lambda x: x.flip(-1),
    "upside down": lambda x: x.flip(-2),
    "turned by 90 degrees": lambda x: x.mT.flip(-1),
    "turned by 180 degrees": lambda x: x.flip(-1, -2),
    "turned by 270 degrees": lambda x: x.mT.flip(-2),
}
SHIFTED: dict[str, Move] = {
    f"shifted {where} by {part}": lambda x, by=by, axis=axis, part=part: x.roll(by * (x.shape[axis] // part), axis)
    for where, by, axis in (("down", 1, -2), ("up", -1, -2), ("right", 1, -1), ("left", -1, -1))
    for part in (16, 8)  # of the side
}
# The image's side in pixels that a model accepts, that fills its windows, or that gives enough places at the end: of
# two or seven a side, poolings cover some, and one in the middle is in no corner.
SIDES = {
    "cpubone_nano": 256, "csatv2": 128, "efficientvit_m0": 224, "ese_vovnet19b_slim_dw": 256, "iformer_t": 256,
    "inception_resnet_v2": 299, "inception_v3": 299, "inception_v4": 299, "legacy_xception": 128, "levit_128s": 224,
    "levit_256d": 224, "levit_conv_128s": 224, "pit_ti_224": 128, "poolformerv2_s12": 224, "resnetv2_18": 128,
    "selecsls42": 128,
}  # fmt: skip
# VOLO adds to each class the largest value that it has at a single place, wherever the pattern is.
OPTIONS = {"volo_d1_224": {"use_aux_head": False}}
WEAK = {"gmlp_ti16_224"}  # whose linear layers mix places
# These divide by sums that may be close to 0: a map may change with the least noise.
DIVIDING = {"LRP", "TransformerAttribution", "TokenGradCAMPlusPlus", "ViTAGradCAMPlusPlus"}
NOISE = 1e-3
EVERY_METHOD = 3_000_000  # models have fewer parameters
LARGEST = 60_000_000
WAYS = ("VTranM", "TokenGradCAM", "AttnLRP")  # to a map: a row's grid, a feature map's places, a gradient of the pixels


@pytest.mark.parametrize("kind", representatives(parameters=LARGEST))
@pytest.mark.one_in(5)
def test_a_pattern_is_found_in_the_corner_where_it_is(kind: dict[str, Any]) -> None:
    """With weights that keep places apart: four grey images with one pattern, each in another corner."""
    model, images = _local(kind)
    target = largest(model(images)[:1].expand(len(images), -1))  # one target, so that only the images differ
    # methods of one kind share what places their maps
    for explainer in explainers_named(["all"] if kind["parameters"] < EVERY_METHOD else WAYS).values():
        found = wrong(explainer, model, images, target)
        assert not found, f"{explainer.name}: {found}"


def _rolled(sign: int, grid: torch.Tensor) -> torch.Tensor:
    return grid.roll(sign * max(1, grid.shape[-1] // 4), -1 if sign > 0 else -2)


@pytest.mark.parametrize("change", [*TURNED.values(), partial(_rolled, 1), partial(_rolled, -1)])
@pytest.mark.parametrize("kind", representatives("test_vit", "test_convnext", "convit_tiny", "visformer_tiny"))
def test_a_wrong_map_is_noticed(kind: dict[str, Any], change: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of grids that are turned, or shifted by a quarter of them, before they become pixels."""
    model, images = _local(kind)
    target = largest(model(images)[:1].expand(len(images), -1))
    monkeypatch.setattr("captum_astro.attr._base.widen", change)
    names = [name for name in ("VTranM", "TokenGradCAM") if kind["status"][name] != "refused"]
    said = {one.name: wrong(one, model, images, target) for one in explainers_named(names).values()}
    assert all(said.values()), said


def wrong(explainer: Explainer, model: nn.Module, images: torch.Tensor, target: Any) -> str:
    """What moves a method's maps to where they should lie; empty if nothing does, or if the method refuses."""
    try:
        maps = attribution(explainer.method, model, images, target)
    except UnsupportedModelError:
        return ""
    found = moved(_changes(maps))
    if found and explainer.name in DIVIDING:
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
        noisy = attribution(explainer.method, model, images + NOISE * noise, target)
        if (noisy - maps).sum(1).abs().sum() > _changes(maps).sum() / 4:
            return ""  # the map changes nearly as much with noise that nobody sees
    return found


def _changes(maps: torch.Tensor) -> torch.Tensor:
    """How each map differs from the others, ``(4, H, W)``, but for what differs everywhere alike.

    The others agree where it has its pattern, and with it elsewhere: at any place only one has a pattern.
    """
    changes = (maps - maps.median(0).values).sum(1)
    return (changes - changes.flatten(1).median(1).values[:, None, None]).abs()


def moved(changes: torch.Tensor) -> str:
    """What would bring the changes of the maps closer to their corners; empty for nothing."""
    kept = _in_place(changes)
    for name, move in TURNED.items():
        if _in_place(move(changes)) * 1.02 > kept:
            return f"{name} {kept:.2f} {_in_place(move(changes)):.2f}"
    for name, move in SHIFTED.items():  # patches may be seen in part only
        if _in_place(move(changes)) * 0.9 > kept:
            return f"{name} {kept:.2f} {_in_place(move(changes)):.2f}"
    return ""


def _in_place(changes: torch.Tensor) -> float:
    """How much of each map's change is in its corner, from 0 to 1."""
    parts = [
        _quarters(change)[corner].sum() / change.sum().clamp_min(1e-300)
        for change, corner in zip(changes, CORNERS, strict=True)
    ]
    return float(sum(parts)) / len(parts)


def _local(kind: dict[str, Any]) -> tuple[nn.Module, torch.Tensor]:
    """A model whose places hardly mix and are alike, and its four images."""
    form = Form.of(kind)
    side = form.image[1] * (2 if "approximate" in kind["status"].values() else 1)  # stated rules blur small grids
    form = _of_side(form, SIDES.get(kind["tried"], side), OPTIONS.get(kind["tried"], {}))
    model = form.build().double()
    weights = _local_weights(model, GAINS[kind["tried"] not in WEAK], torch.float64)
    with torch.no_grad():
        for path, weight in (*model.named_parameters(), *model.named_buffers()):
            if path in weights:
                weight.copy_(torch.zeros_like(weight) if _POSITIONS.search(path) else weights[path])
                if path.endswith("attention_biases"):  # of each distance, the first 0: each place attends to itself
                    weight[:, 0] = 12
                if weight.ndim == 4:  # a kernel of even sides has four pixels in its middle, of which one was kept
                    weight.copy_((weight + weight.flip(-1) + weight.flip(-2) + weight.flip(-1, -2)) / 4)
                if weight.ndim == 4 and _MIXERS.search(path):  # as a linear layer's there
                    weight.mul_(GAINS[kind["tried"] not in WEAK])
    images = torch.full((len(CORNERS), *form.image), 0.5, dtype=torch.float64)
    for image, corner in zip(images, CORNERS, strict=True):
        part = _quarters(image)[corner]
        part.copy_(torch.rand(part.shape, generator=torch.Generator().manual_seed(3)))
    return (model if model(images[:1]).ndim == 2 else _Averaged(model)), images


def _of_side(form: Form, side: int, options: dict[str, Any]) -> Form:
    options = form.options | options | {key: side for key in form.options if key == "img_size"}
    return replace(form, image=(form.image[0], side, side), options=options)


class _Averaged(nn.Module):
    """A model whose output belongs to all places, where its own is one of places."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(x)
        return output.flatten(2).mean(2) if output.ndim == 4 else output.mean(1)


def _quarters(x: torch.Tensor) -> list[torch.Tensor]:
    """Views of the four corners: upper left, upper right, lower left, lower right."""
    return [part for half in x.tensor_split(2, -2) for part in half.tensor_split(2, -1)]
