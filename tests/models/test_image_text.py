from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from captum_astro.extras import MissingExtraError
from captum_astro.models.errors import ModelError
from captum_astro.models.image_text import load_image_text
from tests.models.tiny_clip import NAME, tiny_clip


def test_a_model_with_a_weights_file(tmp_path: Path) -> None:
    saved = tiny_clip(tmp_path)
    loaded, tokenizer = load_image_text(NAME, tmp_path / "tiny.pt")
    assert not any(module.training for module in loaded.modules())
    for name, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert tokenizer(["a cat", "a dog"]).shape == (2, 12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-33:x", r"open_clip has no model 'ViT-B-33'\. Did you mean ViT-B-32"),
        ("open_clip:RN50", r"open_clip:RN50: name its weights, as in open_clip:RN50:openai; of openai, yfcc15m"),
        ("open_clip:RN50:x", r"open_clip:RN50:x: name its weights, as in open_clip:RN50:openai; of openai, yfcc15m"),
        (NAME, r"open_clip:tiny: no weights of it are published; give checkpoint=FILE\."),
    ],
)
def test_names_that_are_refused(tmp_path: Path, name: str, message: str) -> None:
    tiny_clip(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_image_text(name)


def test_a_file_that_holds_other_weights(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"open_clip:tiny could not be loaded: .*Missing key"):
        load_image_text(NAME, tmp_path / "other.pt")


def test_without_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        MissingExtraError, match=r'open_clip:a:b needs open_clip_torch, .*pip install ".*\[open_clip\]"'
    ):
        load_image_text("open_clip:a:b")
