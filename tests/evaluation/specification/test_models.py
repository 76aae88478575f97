from __future__ import annotations

from pathlib import Path

import pytest

from captum_astro.evaluation.specification import ModelChoice, model_of


def test_a_model_and_a_model_under_astrocytes() -> None:
    assert model_of("vit_tiny_patch16_224", Path("a.pt"), 7) == ModelChoice("vit_tiny_patch16_224", Path("a.pt"), 7)
    found = model_of("VITA:deit_tiny_patch16_224 : layer=blocks.0.mlp.fc1:alpha=1.5", Path("a.pt"))
    assert (found.name, found.checkpoint) == ("deit_tiny_patch16_224", Path("a.pt"))
    assert found.vita == {"layer": "blocks.0.mlp.fc1", "alpha": 1.5}
    assert found.title == "vita:deit_tiny_patch16_224:layer=blocks.0.mlp.fc1:alpha=1.5"
    assert model_of("vita:hf-hub:timm/vit:k=4").name == "hf-hub:timm/vit"
    assert model_of("hf-hub:timm/vit").vita is None
    assert ModelChoice("a", vita={}).title == "vita:a"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("vita:", "--models 'vita:': it is vita:NAME, then options as NAME=VALUE"),
        ("vita:k=4", "--models 'vita:k=4': it is vita:NAME"),
        ("vita:a:k=4:b", "--models 'vita:a:k=4:b': it is vita:NAME"),
        ("vita:a:kappa=4", "vita:a has no option 'kappa=4'. Options: k, tau, phi"),
        ("vita:a:k=much", "vita:a: k must be a whole number, not 'much'"),
        ("vita:a:token=first", "vita:a: token must be auto, cls or mean, not 'first'"),
    ],
)
def test_invalid_options(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of(word)
