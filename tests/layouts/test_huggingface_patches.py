"""Hugging Face's SigLIP 2 on lists of patches: timm's maps with the same weights, and batches of several sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from torch import nn

from captum_astro import VTranM, check, explainers
from captum_astro.layouts import layout_for
from tests.libraries import loaded, renamed, split_qkv, without_relu

transformers = pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

# BeyondIntuition and InFlow are not defined for pooling heads; ViTCX masks pixels
METHODS = [e.method for e in explainers() if e.name not in {"BeyondIntuition", "InFlow", "ViTCX"}]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
VISION = {
    "num_patches": 16, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 96, "hidden_act": "gelu",
}  # fmt: skip
GRIDS = ((4, 4), (2, 3), (3, 2))


def _drawn(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else 1.2 * parameter[0].numel() ** -0.5)
    return model.double().eval()


def _theirs() -> nn.Module:
    """timm's; positions are numbers of float32, in which Hugging Face resizes them, and to their own size."""
    config = NaFlexVitCfg(
        patch_size=8, embed_dim=24, depth=2, num_heads=3, global_pool="map", pos_embed_grid_size=(4, 4)
    )
    model = _drawn(NaFlexVit(config, num_classes=0))
    model.embeds.pos_embed.data = model.embeds.pos_embed.data.float().double()
    return model


def _converted() -> nn.Module:
    tensors = dict(_theirs().state_dict())
    tensors["embeds.pos_embed"] = tensors["embeds.pos_embed"].flatten(0, 2)
    for kind in ("weight", "bias"):
        query, rest = tensors.pop(f"attn_pool.q.{kind}"), tensors.pop(f"attn_pool.kv.{kind}")
        tensors[f"attn_pool.in_proj_{kind}"] = torch.cat([query, rest])
    tensors = {"post_layernorm" + k[4:] if k.startswith("norm.") else k: value for k, value in tensors.items()}
    names = {
        "embeds.proj": "embeddings.patch_embedding", "embeds.pos_embed": "embeddings.position_embedding.weight",
        "blocks.": "encoder.layers.", "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "attn.out_proj",
        "attn.": "self_attn.", "attn_pool.latent": "head.probe", "attn_pool.proj": "head.attention.out_proj",
        "attn_pool.in_proj": "head.attention.in_proj", "attn_pool.norm": "head.layernorm", "attn_pool.": "head.",
    }  # fmt: skip
    model = transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**VISION, layer_norm_eps=1e-6))
    return loaded(model, renamed(split_qkv(tensors, ("q_proj", "k_proj", "v_proj")), names))


def _classifier() -> nn.Module:
    text = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1, "vocab_size": 50}
    config = transformers.Siglip2Config(vision_config=VISION, text_config=text, num_labels=5)
    return _drawn(transformers.Siglip2ForImageClassification(config))


def _features() -> nn.Module:
    return _drawn(transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**VISION)))


def _options(method: Any) -> dict[str, Any]:
    """Features have no probability."""
    return without_relu(method) | ({"output": "logit"} if method is VTranM else {})


def _lists() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Patches of several grids with two of padding at least, their mask, and the sizes of the grids."""
    patches = torch.randn(3, 18, 192, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shapes = torch.tensor(GRIDS)
    return patches, (torch.arange(18) < shapes.prod(1)[:, None]).long(), shapes


@every_method
def test_maps_equal_those_of_timm(method: Any) -> None:
    patches, mask, shapes = (x[:1] for x in _lists())
    patches = torch.cat([patches, patches.flip(1)])
    coord = torch.cat([torch.cartesian_prod(torch.arange(4), torch.arange(4)), torch.zeros(2, 2, dtype=torch.long)])
    options = {"target": [1, 2], **_options(method)}
    mask, shapes, coord = mask.expand(2, -1), shapes.expand(2, -1), coord.expand(2, -1, -1)
    expected = method(_theirs()).attribute(patches, additional_forward_args=(coord, mask > 0), **options)
    found = method(_converted()).attribute(patches, additional_forward_args=(mask, shapes), **options)
    assert expected.flatten(1).abs().amax(1).min() > 0
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


@every_method
@pytest.mark.parametrize("make", [_features, _classifier])
def test_a_batch_is_its_images_without_padding(method: Any, make: Any) -> None:
    explain, (patches, mask, shapes) = method(make()).attribute, _lists()
    options = _options(method)
    found = explain(patches, target=[0, 1, 2], additional_forward_args=(mask, shapes), **options)
    assert found.shape == patches.shape
    assert not found[mask == 0].any()
    for number, (rows, columns) in enumerate(GRIDS):
        one = slice(number, number + 1), slice(rows * columns)
        which = mask[one], shapes[one[0]]
        expected = explain(patches[one], target=number, additional_forward_args=which, **options)
        assert (found[one] - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.mark.parametrize("make", [_features, _classifier])
def test_layers_are_rebuilt(make: Any) -> None:
    patches, mask, shapes = _lists()
    report = check(make(), patches[1:2, :6], (mask[1:2, :6], shapes[1:2]))
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12
    assert report.grid == (1, 6)
    layout = layout_for(make())
    assert layout.extent(1, 6) == (1, 6)
    assert layout.pooling is not None or torch.equal(layout.readout(6), torch.full((6,), 1 / 6, dtype=torch.float64))
