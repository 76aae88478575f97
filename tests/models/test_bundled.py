from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models.pit import PoolingVisionTransformer

from captum_astro import AttnLRP, TokenGradCAM, VTranM
from captum_astro.data.cifar import read_cifar
from captum_astro.data.scenes import Scenes, batch
from captum_astro.metrics.localisation import energy_inside
from captum_astro.models import bundled
from captum_astro.models.astromorphic_registered import CIFAR10
from captum_astro.models.loading import ModelError, class_names, load_model, preprocessing
from captum_astro.training.batches import Images
from captum_astro.training.pooled import start_from
from captum_astro.training.run import WEIGHTS, train
from captum_astro.training.scenes import SceneSource, ScenesTask
from captum_astro.training.scores import accuracy

SCENES = (bundled.PLAIN, bundled.PIT, bundled.ASTROMORPHIC)
SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("name", [*SCENES, CIFAR10])
def test_weights_are_small_and_load(name: str) -> None:
    assert (bundled.WEIGHTS / f"{name}.safetensors").stat().st_size <= 2_000_000
    model = load_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 800_000
    assert name in [model.split(".")[0] for model in timm.list_models("*", pretrained=True)]
    assert model.pretrained_cfg["license"] == "bsd-3-clause"


def test_pit_is_timms_and_pools_its_patches() -> None:
    model = timm.create_model(bundled.PIT, pretrained=True).eval()
    assert type(model) is PoolingVisionTransformer
    x = torch.zeros(1, 3, 64, 64)
    features = timm.create_model(bundled.PIT, pretrained=True, features_only=True).eval()
    assert [tuple(map_.shape) for map_ in features(x)] == [(1, 96, 16, 16), (1, 96, 8, 8)]
    torch.testing.assert_close(
        timm.create_model(bundled.PIT, pretrained=True, num_classes=0).eval()(x),
        model.forward_head(model.forward_features(x), pre_logits=True),
    )


def test_pit_starts_from_the_plain_model() -> None:
    """With patches that are all alike, pooling changes nothing, except where it reads beyond the border."""
    plain, model = timm.create_model(bundled.PLAIN, pretrained=True).eval(), timm.create_model(bundled.PIT).eval()
    start_from(model, plain)
    tests = SceneSource("test", 0, 128, "cpu")
    assert accuracy(model, tests, batch_size=64) > accuracy(plain, tests, batch_size=64) - 0.1
    with torch.no_grad():
        first = plain._pos_embed(plain.patch_embed(torch.zeros(1, 3, 64, 64)))
        kept: list[torch.Tensor] = []
        model.transformers[0].blocks.register_forward_pre_hook(lambda m, a: kept.append(a[0]))
        model(torch.zeros(1, 3, 64, 64))
    torch.testing.assert_close(kept[0], first)


@pytest.mark.parametrize("name", SCENES)
def test_it_knows_held_out_digits(name: str) -> None:
    model = timm.create_model(name, pretrained=True).eval()
    assert accuracy(model, SceneSource("test", 0, 500, "cpu"), batch_size=64) >= 0.95


@pytest.mark.skipif(not SHARED.exists(), reason="CIFAR-10 is not at hand")
def test_it_knows_cifar10() -> None:
    model = timm.create_model(CIFAR10, pretrained=True).eval()
    held_out = read_cifar(SHARED, "test")
    config = model.pretrained_cfg
    images = Images(held_out.images[:1000], held_out.labels[:1000], config["mean"], config["std"])
    assert accuracy(model, images) >= 0.7


@pytest.mark.parametrize("name", SCENES)
def test_the_map_falls_on_the_digit(name: str) -> None:
    model = timm.create_model(name, pretrained=True).eval()
    images, labels, masks = batch(Scenes("test", 50), range(50))
    maps = VTranM(model).attribute((images - 0.5) / 0.5, target=labels, attribute_to="pixels")[:, 0]
    assert energy_inside(maps, masks).mean() > 2 * masks.float().mean()


def test_vtranm_and_propagation_beat_grad_cam_on_the_hierarchical_model() -> None:
    model = timm.create_model(bundled.PIT, pretrained=True).eval()
    images, labels, masks = batch(Scenes("test", 50), range(50))
    vtranm, attn_lrp, grad_cam = (
        energy_inside(
            method(model).attribute((images - 0.5) / 0.5, target=labels, attribute_to="pixels")[:, 0], masks
        ).mean()
        for method in (VTranM, AttnLRP, TokenGradCAM)
    )
    assert min(vtranm, attn_lrp) > 1.5 * grad_cam


@pytest.mark.parametrize("name", SCENES)
def test_training_writes_weights_that_load(name: str, tmp_path: Path) -> None:
    result = train(ScenesTask(model=name, steps=2, held_out=64), tmp_path)
    assert 0 <= result["accuracy"] <= 1
    load_model(name, checkpoint=tmp_path / WEIGHTS)


def test_loading_by_name() -> None:
    model = load_model("vit_tiny_patch16_224", pretrained=False)
    assert not model.training
    assert class_names(model, 1000)[281].startswith("tabby")
    assert class_names(model, 5) == ["0", "1", "2", "3", "4"]
    assert preprocessing(model)[1]["input_size"] == (3, 224, 224)
    with pytest.raises(ModelError, match="timm has no model"):
        load_model("vit_of_nobody")
