from __future__ import annotations

from pathlib import Path

import pytest
import timm

from captum_astro import VTranM
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

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("name", [*bundled.MODELS.values(), CIFAR10])
def test_weights_are_small_and_load(name: str) -> None:
    assert (bundled.WEIGHTS / f"{name}.safetensors").stat().st_size <= 2_000_000
    load_model(name)
    assert name in [model.split(".")[0] for model in timm.list_models("*", pretrained=True)]


@pytest.mark.parametrize("name", bundled.MODELS.values())
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


@pytest.mark.parametrize("name", bundled.MODELS.values())
def test_the_map_falls_on_the_digit(name: str) -> None:
    model = timm.create_model(name, pretrained=True).eval()
    images, labels, masks = batch(Scenes("test", 50), range(50))
    maps = VTranM(model).attribute((images - 0.5) / 0.5, target=labels, attribute_to="pixels")[:, 0]
    assert energy_inside(maps, masks).mean() > 2 * masks.float().mean()


@pytest.mark.parametrize("name", bundled.MODELS.values())
def test_training_writes_weights_that_load(name: str, tmp_path: Path) -> None:
    result = train(ScenesTask(model=name, steps=2, held_out=64, bfloat16=False), tmp_path)
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
