from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer

from captum_astro import ATTCAT, VTranM
from captum_astro.data.cifar import read_cifar
from captum_astro.data.scenes import Scenes, batch
from captum_astro.metrics.localisation import energy_inside
from captum_astro.models import bundled
from captum_astro.models.astromorphic_registered import CIFAR10
from captum_astro.models.loading import ModelError, class_names, load_model, preprocessing
from captum_astro.training.batches import Images
from captum_astro.training.run import WEIGHTS, train
from captum_astro.training.scenes import SceneSource, ScenesTask
from captum_astro.training.scores import accuracy

SCENES = (bundled.PLAIN, bundled.SWIN, bundled.ASTROMORPHIC)
SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("name", [*SCENES, CIFAR10])
def test_weights_are_small_and_load(name: str) -> None:
    assert (bundled.WEIGHTS / f"{name}.safetensors").stat().st_size <= 2_000_000
    model = load_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 800_000
    assert name in [model.split(".")[0] for model in timm.list_models("*", pretrained=True)]
    assert model.pretrained_cfg["license"] == "bsd-3-clause"


def test_swin_is_timms_and_shifts_windows_in_both_stages() -> None:
    model = timm.create_model(bundled.SWIN, pretrained=True).eval()
    assert type(model) is SwinTransformer
    assert [[block.shift_size for block in stage.blocks] for stage in model.layers] == [
        [(0, 0), (2, 2)],
        [(0, 0), (2, 2)] * 2,
    ]
    x = torch.zeros(1, 3, 64, 64)
    assert model.forward_features(x).shape == (1, 8, 8, 96)
    features = timm.create_model(bundled.SWIN, pretrained=True, features_only=True).eval()
    assert [tuple(map_.shape) for map_ in features(x)] == [(1, 16, 16, 48), (1, 8, 8, 96)]
    torch.testing.assert_close(
        timm.create_model(bundled.SWIN, pretrained=True, num_classes=0).eval()(x),
        model.forward_head(model.forward_features(x), pre_logits=True),
    )
    with pytest.raises(AssertionError, match="64"):
        model(torch.zeros(1, 3, 32, 32))


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


@pytest.mark.parametrize(
    ("name", "method"), [(bundled.PLAIN, VTranM), (bundled.ASTROMORPHIC, VTranM), (bundled.SWIN, ATTCAT)]
)
def test_the_map_falls_on_the_digit(name: str, method: type[VTranM | ATTCAT]) -> None:
    model = timm.create_model(name, pretrained=True).eval()
    images, labels, masks = batch(Scenes("test", 50), range(50))
    maps = method(model).attribute((images - 0.5) / 0.5, target=labels, attribute_to="pixels")[:, 0]
    assert energy_inside(maps, masks).mean() > 2 * masks.float().mean()


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
