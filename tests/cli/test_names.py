"""Names as users type them: of methods, models and classes, each once or several at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_astro.models.loading import load_model
from tests.commands import run_command

TINY = ("-M", "test_vit", "--no-pretrained")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def _explain(monkeypatch, capsys, images: Path, *words: object) -> tuple[int, str]:
    return run_command(monkeypatch, capsys, "explain", images, "-o", images.parent / "maps", *words)


def _record(images: Path) -> list[dict]:
    return json.loads((images.parent / "maps" / "0_explained.png.json").read_text())["maps"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*TINY, "-m", "gradcam"), "Did you mean TokenGradCAM?"),
        ((*TINY, "-m", "grad-cam++"), "Did you mean TokenGradCAMPlusPlus?"),
        ((*TINY, "-m", "rollout"), "Did you mean AttentionRollout?"),
        ((*TINY, "-m", "VTranM,LPR"), "There is no method 'LPR'."),
        (("-m", "vit_tiny_patch16_224"), "--method vit_tiny_patch16_224: that is a model, which --model (-M) is for."),
        (("-M", "vit_tinny_patch16_224"), "Did you mean vit_tiny_patch16_224"),
        (("-M", "vit-tiny"), "timm has no model 'vit-tiny'. Did you mean vit_tiny_patch16_"),
        (("-M", "ViT-B/16"), "Did you mean vit_base_patch16_"),
        (("-M", "vit_b_16"), "Did you mean vit_base_patch16_"),
        (
            (*TINY, "-t", "cat"),
            "--target 'cat': no class has that name; give the index, from 0 to 999. Near: 281 tabby,",
        ),
        ((*TINY, "-t", "zebbra"), "Near: 340 zebra"),
        ((*TINY, "-t", "1000"), "--target 1000: the model's classes run from 0 to 999"),
        ((*TINY, "--class-names", "{missing}"), "missing.txt: there is no such file"),
        ((*TINY, "--class-names", "{two}"), "two.txt has 2 names, and VisionTransformer has 1,000 classes: give"),
        ((*TINY, "--classes", "2", "--class-names", "{two}", "-t", "cot"), "Near: 0 cat"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_a_wrong_name_is_answered_in_one_line(monkeypatch, capsys, images: Path, words, message: str) -> None:
    files = {"missing": images.parent / "missing.txt", "two": images.parent / "two.txt"}
    files["two"].write_text("cat\ndog\n")
    code, out = _explain(monkeypatch, capsys, images, *(word.format(**files) for word in words))
    assert code == 1
    errors = [line for line in out.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert out.splitlines()[-1] == errors[0]


def test_several_methods_and_classes_at_a_time(monkeypatch, capsys, images: Path) -> None:
    words = ("-m", "LRP,vtranm:output=logit", "-m", "RawAttention", "-t", "3, 5", "-t", "zebra", "-n", "1")
    code, out = _explain(monkeypatch, capsys, images, *TINY, *words)
    assert code == 0, out
    assert "1 image explained" in out
    found = [(one["method"], one["target"]["index"]) for one in _record(images)]
    assert found == [(name, index) for index in (3, 5, 340) for name in ("LRP", "VTranM:output=logit", "RawAttention")]


def test_the_name_of_a_method_in_its_paper(monkeypatch, capsys, images: Path) -> None:
    code, out = _explain(monkeypatch, capsys, images, *TINY, "-m", "TokenTM", "-n", "1")
    assert code == 0, out
    assert out.count("warning: TokenTM is VTranM: its name in the paper.\n") == 1
    assert [one["method"] for one in _record(images)] == ["VTranM"]


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("txt", "cat\ndog\nowl, tawny owl\n\n"),
        ("json", '["cat", "dog", "owl, tawny owl"]'),
        ("json", '{"2": "owl, tawny owl", "0": "cat", "1": "dog"}'),
        ("json", '{"dog": 1, "owl, tawny owl": 2, "cat": 0}'),
    ],
)
def test_class_names_of_a_fine_tuned_model(monkeypatch, capsys, images: Path, ending: str, text: str) -> None:
    weights, names = images.parent / "tuned.pt", images.parent / f"names.{ending}"
    torch.save(load_model("test_vit", pretrained=False, num_classes=3).state_dict(), weights)
    names.write_text(text)
    words = ("-M", "test_vit", "-c", weights, "--class-names", names, "-t", "tawny owl", "-t", "dog", "-n", "1")
    code, out = _explain(monkeypatch, capsys, images, *words)
    assert code == 0, out
    assert [one["target"]["name"] for one in _record(images)] == ["owl, tawny owl", "dog"]
    assert "random" not in out


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.txt", "cat\n\ndog\n", "a.txt: class 1 has no name."),
        ("a.txt", "", "a.txt: class 0 has no name."),
        ("a.json", "[", "a.json: this is not JSON ("),
        ("a.json", "3", "a.json: it must be a list of names, or an object of indices and names such as"),
        ("a.json", '["cat", 3]', "a.json: it must be a list of names"),
        ("a.json", '{"0": "cat", "2": "dog"}', "a.json: class 1 has no name; it must be a list"),
        ("a.json", '{"cat": 0, "dog": 0}', "a.json: class 1 has no name; it must be a list"),
    ],
)
def test_class_names_that_cannot_be_read(monkeypatch, capsys, images: Path, file, text: str, message: str) -> None:
    (images.parent / file).write_text(text)
    code, out = _explain(monkeypatch, capsys, images, *TINY, "--class-names", images.parent / file)
    assert code == 1
    assert message in out
    assert len(out.splitlines()) == 1


def test_classes(monkeypatch, capsys, images: Path) -> None:
    code, out = _explain(monkeypatch, capsys, images, *TINY, "--classes", 4, "-t", "3", "-n", "1")
    assert code == 0, out
    assert "The weights are random" in out
    code, out = _explain(monkeypatch, capsys, images, *TINY, "--classes", 4, "-t", "4")
    assert code == 1
    assert "--target 4: the model's classes run from 0 to 3" in out
    weights = images.parent / "tuned.pt"
    torch.save(load_model("test_vit", pretrained=False, num_classes=3).state_dict(), weights)
    words = ("check", "test_vit", "-c", weights, "-m", "RawAttention,VTranM")
    code, out = run_command(monkeypatch, capsys, *words, "--classes", 3)
    assert code == 0, out
    code, out = run_command(monkeypatch, capsys, *words, "--classes", 9)
    assert code == 1
    assert "tuned.pt has a head of 3 classes, not 9: give --classes 3, or weights with 9 classes." in out
