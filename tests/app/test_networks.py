from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from captum_astro.app.networks import Networks
from captum_astro.app.settings import Settings
from captum_astro.app.wish import ModelWish
from captum_astro.models.bundled import PIT, PLAIN
from captum_astro.models.text_target import text_target
from tests.models.tiny_clip import NAME, tiny_clip


def test_models_are_loaded_once_and_few_are_kept(networks: Networks) -> None:
    first = networks.get(ModelWish(PLAIN))
    assert networks.get(ModelWish(PLAIN)) is first
    for name in (PIT, "astromorphic_scenes_tiny_patch8_64"):
        networks.get(ModelWish(name))
    assert networks.get(ModelWish(PLAIN)) is not first


def test_weights_of_the_folder(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    networks = Networks(Settings(tmp_path))
    found = networks.get(ModelWish("test_vit", "mine.pt")).model
    assert torch.equal(found.head.weight, model.head.weight)
    for name in ("../mine.pt", "/etc/passwd"):
        with pytest.raises(ValueError, match="is no file of the app's folder"):
            networks.get(ModelWish("test_vit", name))


def test_a_model_is_checked_once(networks: Networks) -> None:
    assert networks.report(ModelWish(PLAIN)) is networks.report(ModelWish(PLAIN))


def test_an_image_text_model_is_loaded_once_for_all_texts(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip", reason="the extra 'open_clip' is not installed")
    clip, texts = tiny_clip(tmp_path), ("a cat", "a dog", "two digits")
    networks, x = Networks(Settings(tmp_path)), torch.rand(1, 3, 32, 32)
    found = networks.get(ModelWish(NAME, "tiny.pt", texts))
    assert found.names == list(texts)
    with torch.no_grad():
        expected = text_target(clip, open_clip.get_tokenizer("tiny"), texts)(x)
        assert torch.equal(found.model(x), expected)
        other = networks.get(ModelWish(NAME, "tiny.pt", texts[:2]))
        assert torch.equal(other.model(x), expected[:, :2])
    assert other.model.images is found.model.images
    report = networks.report(ModelWish(NAME, "tiny.pt", texts))
    assert {one.method: one.status for one in report.outcomes}["VTranM"] == "exact"
