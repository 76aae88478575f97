"""Lists of patches: several sizes and aspect ratios in one batch, with padding."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg, batch_patchify
from torch import nn

from captum_astro import InFlow, UnsupportedModelError, VTranM, check, explainers, image_from_patches
from tests import families, twins
from tests.comparing import assert_close

# BeyondIntuition darkens what the wrapper receives, and is not defined for pooling heads; ViTCX masks pixels
METHODS = [e.method for e in explainers() if e.name not in ("BeyondIntuition", "ViTCX")]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
GRIDS = ((2, 3), (4, 2), (3, 2), (1, 6))
SIDE = 8
TARGETS = [0, 1, 2, 3]
_close = partial(assert_close, tolerance=1e-10)


def _naflex(**options: Any) -> nn.Module:
    config = NaFlexVitCfg(patch_size=SIDE, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, **options)
    return NaFlexVit(config, num_classes=5, img_size=32)


MODELS = {
    "patches_class_token": partial(_naflex, class_token=True, global_pool="token", init_values=0.5),
    "patches_average": partial(_naflex, global_pool="avg", pos_embed="factorized"),
    "patches_average_with_prefix": partial(_naflex, global_pool="avg", reg_tokens=2, pool_include_prefix=True),
    "patches_pooling": partial(_naflex, global_pool="map", reg_tokens=1, pos_embed_use_grid_sample=True),
    "patches_rope": partial(_naflex, global_pool="avg", pos_embed="none", rope_type="axial"),
    "patches_mixed_rope": partial(_naflex, global_pool="avg", rope_type="mixed", use_key_only_attn_mask=True),
}
families.OTHERS |= MODELS
every_model = pytest.mark.parametrize("name", MODELS)


def _lists(padding: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Patches with numbers also where there is padding, their coordinates, and which of them are valid."""
    generator = torch.Generator().manual_seed(0)
    longest = max(rows * columns for rows, columns in GRIDS) + padding
    patches = torch.randn(len(GRIDS), longest, SIDE * SIDE * 3, generator=generator, dtype=torch.float64)
    coord, valid = torch.zeros(*patches.shape[:2], 2, dtype=torch.long), torch.zeros(patches.shape[:2]) > 0
    for number, (rows, columns) in enumerate(GRIDS):
        coord[number, : rows * columns] = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        valid[number, : rows * columns] = True
    return patches, coord, valid


def _one(number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One image of them, without padding."""
    patches, coord, valid = _lists()
    n = int(valid[number].sum())
    return patches[number, None, :n], coord[number, None, :n], valid[number, None, :n]


@every_model
@every_method
@pytest.mark.filterwarnings("ignore:.*zero everywhere")
@pytest.mark.one_in(3)
def test_a_batch_is_its_images_without_padding(method: Any, name: str) -> None:
    model, (patches, coord, valid) = families.build(name), _lists()
    if method is InFlow and name == "patches_pooling":
        with pytest.raises(UnsupportedModelError, match="InFlow needs the class score of a mean of tokens"):
            method(model).attribute(patches, target=TARGETS, additional_forward_args=(coord, valid))
        return
    prefix = model.num_prefix_tokens
    for options in ({"internal_batch_size": 1}, {"internal_batch_size": "auto"}, {"attribute_to": "tokens"}):
        explain = method(model).attribute
        found = explain(patches, target=TARGETS, additional_forward_args=(coord, valid), **options)
        tokens = "attribute_to" in options
        first = prefix if tokens else 0
        assert found.shape == ((len(GRIDS), prefix + patches.shape[1]) if tokens else patches.shape)
        assert not found[:, first:][~valid].any()
        for number in (0, 2):  # of equal length, in a part of their own and together
            alone, *which = _one(number)
            expected = explain(alone, target=number, additional_forward_args=tuple(which), **options)
            # LRP divides by sums of either sign, Grad-CAM++ by small ones
            assert torch.allclose(found[number, None, : expected.shape[1]], expected, rtol=1e-8, atol=1e-13)


@every_method
def test_the_patches_of_an_image_get_what_the_image_gets(method: Any) -> None:
    model, x = families.build("patches_average"), families.images("patches_average", 2)
    patches, (rows, columns) = batch_patchify(x, (SIDE, SIDE))
    coord = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).expand(2, -1, -1)
    which = coord, torch.ones(patches.shape[:2]) > 0
    options = {"relu_attributions": False} if "CAM" in method.__name__ and "Token" in method.__name__ else {}
    explain = partial(method(model).attribute, target=1, **options)
    tokens = explain(patches, additional_forward_args=which, attribute_to="tokens")
    _close(tokens, explain(x, attribute_to="tokens"), tolerance=1e-8)
    found = explain(patches, additional_forward_args=which)
    image = torch.stack([image_from_patches(part, coord[0], which[1][0], SIDE) for part in found])
    if "LRP" in method.__name__:  # of every pixel and channel
        _close(image, explain(x), tolerance=1e-8)
        return
    mean = torch.nn.functional.avg_pool2d(image.sum(1, keepdim=True), SIDE)
    _close(mean, explain(x, attribute_to="grid"), tolerance=1e-8)
    assert image[0, 0, 0, 0] == image[0, 2, SIDE - 1, SIDE - 1]  # shared equally


@every_model
@pytest.mark.parametrize("include_norm", [True, False])
def test_vtranm_is_the_loops_over_the_masked_maps(name: str, include_norm: bool) -> None:
    """The reference keeps the padding, whose columns of the model's own maps are zero."""
    model, (patches, coord, valid) = families.build(name), _lists()
    options = {"aggregation": True, "components": ("length", "direction"), "include_norm": include_norm, "gain": 1.0}
    for number in (0, 3):
        one, *which = (x[number, None] for x in (patches, coord, valid))
        taken = twins.take(model, one, 1, "logit", *which)
        kept = [*range(model.num_prefix_tokens), *(model.num_prefix_tokens + which[1][0].nonzero().flatten()).tolist()]
        expected, _ = twins.vtranm(model, _among(taken, kept), _readout(model, len(kept)), **options)
        found = VTranM(model).attribute(
            one, target=1, additional_forward_args=tuple(which), attribute_to="tokens", output="logit",
            include_norm=include_norm,
        )  # fmt: skip
        _close(found[0, : len(kept)], expected)


def _among(taken: twins.Taken, kept: list[int]) -> twins.Taken:
    """The record of some tokens, which must see no other."""

    def part_of(part: twins.Part, queries: Any, keys: list[int]) -> twins.Part:
        if part.attention is None:
            return twins.Part(added=part.added[kept])
        seen = part.attention[:, queries]
        assert not seen[..., [j for j in range(seen.shape[2]) if j not in keys]].any()
        vectors = {include: vector[:, keys] for include, vector in part.vectors.items()}
        maps = (seen[..., keys], part.gradient[:, queries][..., keys])
        return twins.Part(*maps, vectors, part.scale[:, queries])

    stages = [(stream[kept], [part_of(part, kept, kept) for part in parts]) for stream, parts in taken.stages]
    if taken.pool is None:
        return twins.Taken(stages, None)
    stream, part, first = taken.pool
    keys = [token - first for token in kept[first:]]
    return twins.Taken(stages, (stream[keys], part_of(part, slice(None), keys), first))


def _readout(model: Any, tokens: int) -> torch.Tensor:
    weights = torch.zeros(tokens, dtype=torch.float64)
    if model.global_pool == "token":
        weights[0] = 1
    else:
        weights[0 if model.pool_include_prefix else model.num_prefix_tokens :] = 1
    return weights / weights.sum()


@every_model
def test_layers_are_rebuilt(name: str) -> None:
    model = families.build(name)
    patches, *which = _one(1)
    report = check(model, patches, tuple(which))
    assert report.ok
    assert report.tolerance == 1e-10
    assert report.grid == (1, 8)
    with pytest.raises(ValueError, match=r"without padding: .*patch_coord, patch_valid.*patch_valid True everywhere"):
        check(model, _lists()[0], _lists()[1:])
    with pytest.raises(ValueError, match="without padding"):
        check(model, patches)


class _Wrapped(nn.Module):
    """Normalises the patches and passes the collator's dict."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = families.build("patches_class_token")

    def forward(self, patches: torch.Tensor, coord: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.inner({"patches": (patches - 0.5) / 0.5, "patch_coord": coord, "patch_valid": valid})


@every_method
def test_a_wrapper(method: Any) -> None:
    patches, *which = _lists()
    given = {"target": TARGETS, "additional_forward_args": tuple(which), "attribute_to": "tokens"}
    wrapper = _Wrapped()
    found = method(wrapper).attribute(patches, **given)
    _close(found, method(wrapper.inner).attribute((patches - 0.5) / 0.5, **given))


def test_patches_with_dimensions_of_their_own() -> None:
    """Other precisions, too: the map has the patches' dtype."""
    model = families.build("patches_average", torch.float32)
    patches, *which = _lists()
    explain = partial(VTranM(model).attribute, target=TARGETS, additional_forward_args=tuple(which))
    flat = explain(patches.float())
    found = explain(patches.float().unflatten(2, (SIDE, SIDE, 3)))
    assert found.shape == (*patches.shape[:2], SIDE, SIDE, 3)
    assert found.dtype == torch.float32
    assert torch.equal(found.flatten(2), flat)
    (whole,) = explain((patches.float(),))
    assert torch.equal(whole, flat)


def test_bad_lists() -> None:
    explain = VTranM(families.build("patches_class_token")).attribute
    patches, coord, valid = _lists()
    broken, holes, outside = patches.clone(), valid.clone(), coord.clone()
    broken[0, -1], holes[0, 1], outside[0, -1] = torch.nan, False, 9
    for wrong, arguments, message in [
        (patches, None, r"need additional_forward_args=\(patch_coord, patch_valid\), all tensors, not \(\)"),
        (patches, coord, r"not \(Tensor \(4, 10, 2\)\)"),
        (patches, (coord, None), r"not \(Tensor \(4, 10, 2\), NoneType \(\)\)"),
        (patches, (coord, valid, valid), "all tensors"),
        (patches, (coord, valid[:, :3]), r"patch_valid must be boolean \(4, 10\)"),
        (patches, (coord, valid.double()), r"patch_valid must be boolean .*float64"),
        (patches, (coord, holes), "patch_valid must be True for the patches of each image, at least one, and then"),
        (patches, (coord, valid & False), "at least one"),
        (patches, (coord.double(), valid), r"patch_coord must be integers \(4, 10, 2\)"),
        (patches, (coord[..., :1], valid), "patch_coord must be integers"),
        (patches, (outside, valid), "patch_coord has larger rows or columns at padding.*0 where patch_valid is False"),
        (patches.long(), (coord, valid), r"Patches must be floating point \(B, n, \.\.\.\), not torch.int64"),
        (patches[:0], (coord[:0], valid[:0]), r"not torch.float64 \(0, 10, 192\)"),
        (broken, (coord, valid), "NaN or infinite"),
    ]:
        with pytest.raises(ValueError, match=message):
            explain(wrong, target=1, additional_forward_args=arguments)
    for form in ("pixels", "grid"):
        with pytest.raises(ValueError, match=f"no common {form}: use .*'input' or 'tokens'.*image_from_patches"):
            explain(patches, target=1, additional_forward_args=(coord, valid), attribute_to=form)
    convolution = VTranM(_naflex(embed_proj_type="conv").eval())
    with pytest.raises(UnsupportedModelError, match="embed_proj_type='linear'"):
        convolution.attribute(patches.float(), target=1, additional_forward_args=(coord, valid))
