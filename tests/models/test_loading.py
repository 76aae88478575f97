"""A loaded model's outputs equal those of the model that wrote the file, in every form of weights, or it is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from captum_astro.models.loading import ModelError, load_model, preprocessing
from tests.models.weights_files import DINO, LARGE, NAME, Tensors, dinov2, hugging_face, same_outputs, written

FORMS: dict[str, Callable[[Tensors], dict[str, Any]]] = {
    "plain": lambda state: state,
    "flat, beside training's values": lambda state: {**state, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}},
    "DistributedDataParallel": lambda state: {"module." + key: value for key, value in state.items()},
    "torch.compile": lambda state: {"module._orig_mod." + key: value for key, value in state.items()},
    "torch.compile of blocks": lambda state: {
        key.replace("blocks.0.", "blocks.0._orig_mod."): value for key, value in state.items()
    },
    "averaged model": lambda state: {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in state.items()},
    "Lightning": lambda state: {
        "state_dict": {"model." + k: v for k, v in state.items()},
        "hyper_parameters": {"a": 1},
    },
    "net": lambda state: {"net." + key: value for key, value in state.items()},
    "open_clip": lambda state: (
        {"module.visual.trunk." + key: value for key, value in state.items()} | {"module.text.weight": torch.ones(2)}
    ),
    "open_clip's head": lambda state: (
        {"visual.trunk." + k: v for k, v in state.items() if not k.startswith("head.")}
        | {"visual.head.proj.weight": state["head.weight"], "logit_scale": torch.ones(())}
    ),
    "Hugging Face": hugging_face,
    "Hugging Face, with a pooler": lambda state: hugging_face(state) | {"vit.pooler.dense.weight": torch.ones(24, 24)},
    "Hugging Face, wrapped": lambda state: {"module." + key: value for key, value in hugging_face(state).items()},
    "DeepSpeed": lambda state: {"module": state, "epoch": 3},
    "nested": lambda state: {"checkpoint": {"model": state}, "epoch": 3},
    "old counters": lambda state: state | {"norm.num_batches_tracked": torch.tensor(1)},
    "parameters": lambda state: {key: nn.Parameter(value) for key, value in state.items()},
    **{
        part: lambda state, part=part: {part: state, "optimizer": {"state": {}}, "scaler": None, "epoch": 3}
        for part in ("state_dict", "model", "model_state_dict", "net", "teacher", "student", "model_ema", "my_vit")
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_outputs_are_those_of_the_model_that_wrote_the_file(tmp_path: Path, form: str) -> None:
    model = written()
    content = FORMS[form](model.state_dict())
    if form == "open_clip's head":  # which has no bias
        model.head.bias.data.zero_()
    torch.save(content, tmp_path / "weights.pt")
    same_outputs(load_model(NAME, checkpoint=tmp_path / "weights.pt"), model)


@pytest.mark.parametrize(
    ("raw", "averaged", "join"),
    [
        ("state_dict", "state_dict_ema", dict),
        ("model", "model_ema", dict),
        ("student", "teacher", dict),
        ("model.", "model_ema.module.", None),
        ("student.backbone.", "teacher.backbone.", None),
        ("", "ema.", None),
    ],
)
def test_raw_or_averaged_weights(tmp_path: Path, raw: str, averaged: str, join: type | None) -> None:
    models, file = {raw: written(1), averaged: written(2)}, tmp_path / "last.pt"
    content: dict[str, Any] = {}
    for name, model in models.items():
        state = model.state_dict()
        content |= {name: state} if join else {name + key: value for key, value in state.items()}
    torch.save(content, file)
    for use_ema, own, other in ((True, averaged, raw), (False, raw, averaged)):
        said: list[str] = []
        same_outputs(load_model(NAME, checkpoint=file, use_ema=use_ema, say=said.append), models[own])
        assert said == [
            f"{file} has raw and averaged weights: {own or 'the unprefixed'} is loaded; use_ema={not use_ema} loads "
            f"{other or 'the unprefixed'}."
        ]
    with pytest.warns(UserWarning, match="averaged weights") as found:
        load_model(NAME, checkpoint=file)
    assert found[0].filename == __file__


def test_only_averaged_weights(tmp_path: Path) -> None:
    model, file = written(), tmp_path / "last.pt"
    torch.save({"model_ema": model.state_dict(), "state_dict_ema": None}, file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same_outputs(load_model(NAME, checkpoint=file), model)
    with pytest.raises(ModelError, match=r"has averaged weights only \(model_ema\): use_ema=False cannot be met"):
        load_model(NAME, checkpoint=file, use_ema=False)


@pytest.mark.parametrize("form", ["plain", "Lightning", "Hugging Face"])
def test_head_of_another_size(tmp_path: Path, form: str) -> None:
    model, file = written(classes=7), tmp_path / "weights.pt"
    torch.save(FORMS[form](model.state_dict()), file)
    for asked in (None, 7):
        loaded = load_model(NAME, checkpoint=file, num_classes=asked)
        assert loaded.num_classes == 7
        same_outputs(loaded, model)
    with pytest.raises(ModelError, match=r"a head of 7 classes, not 10: give num_classes=7, or weights with 10"):
        load_model(NAME, checkpoint=file, num_classes=10)


@pytest.mark.parametrize("form", ["plain", "net", "Hugging Face"])
def test_positions_of_another_size(tmp_path: Path, form: str) -> None:
    model, file = written(), tmp_path / "weights.pt"
    torch.save(FORMS[form](model.state_dict()), file)
    said: list[str] = []
    loaded = load_model(LARGE, checkpoint=file, say=said.append)
    assert said == [f"{file}: pos_embed was resampled from (1, 17, 24) to (1, 37, 24), as timm does."]
    expected = timm.create_model(LARGE)
    expected.load_state_dict(checkpoint_filter_fn(model.state_dict(), expected))
    same_outputs(loaded, expected.eval(), size=48)


@pytest.mark.parametrize(
    "form",
    [
        lambda state: state,
        lambda state: {"teacher.backbone." + key: value for key, value in state.items()},
        lambda state: hugging_face(state, "dinov2"),
    ],
)
def test_dinov2(tmp_path: Path, form: Callable[[Tensors], Tensors]) -> None:
    model, file = written(name=DINO), tmp_path / "weights.pth"
    torch.save(form(dinov2(model.state_dict())), file)
    said: list[str] = []
    loaded = load_model(DINO, checkpoint=file, say=said.append)
    assert said == []  # its last position moves to the class token: nothing is resampled
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=1e-6)


def test_deit3_as_it_was_published(tmp_path: Path) -> None:
    name = "deit3_small_patch16_224"
    model, file = load_model(name, pretrained=False), tmp_path / "weights.pth"
    state = {
        key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v for key, v in model.state_dict().items()
    }
    torch.save({"model": state}, file)
    loaded = load_model(name, checkpoint=file)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_buffers_that_old_files_have(tmp_path: Path, name: str) -> None:
    model, file = load_model(name, pretrained=False, num_classes=3), tmp_path / "weights.pth"
    stored = model.state_dict() | dict(model.named_buffers())
    assert len(stored) > len(model.state_dict())
    torch.save(stored, file)
    loaded = load_model(name, checkpoint=file)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_batch_norm_without_counters(tmp_path: Path) -> None:
    model, file = load_model("resnet18", pretrained=False), tmp_path / "weights.pth"
    torch.save({key: value for key, value in model.state_dict().items() if "num_batches" not in key}, file)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(load_model("resnet18", checkpoint=file)(x), model(x), rtol=0, atol=0)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    torch.save(FORMS["open_clip"](written().state_dict()), tmp_path / "a.pt")
    load_model(NAME, checkpoint=tmp_path / "a.pt", say=said.append)
    assert said == [f"{tmp_path / 'a.pt'}: module.text.weight is no part of the model, and was left out."]


@pytest.mark.parametrize("checkpoint", [None, "weights.pt"])
def test_tag_that_timm_does_not_know(checkpoint: str | None) -> None:
    with pytest.raises(
        ModelError, match="timm has no weights 'in22k' of vit_tiny_patch16_224: give vit_tiny_patch16_224"
    ):
        load_model("vit_tiny_patch16_224.in22k", checkpoint=checkpoint)


def test_messages_for_python_name_its_arguments() -> None:
    with pytest.raises(
        ModelError, match=r"Give a file with checkpoint=FILE, or ask for random weights with pretrained=F"
    ):
        load_model(NAME)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("test_vit", {}, (160, 160)),
        ("test_vit", {"img_size": 96}, (96, 96)),
        ("test_vit", {"img_size": (64, 128)}, (64, 128)),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "embed_dim": 12, "depths": (1, 1, 1, 1)}, (64, 64)),
        ("beit_base_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 1}, (32, 32)),
        ("resnet10t", {}, (176, 176)),
    ],
)
def test_preprocessing_is_of_the_size_that_the_model_was_built_for(name, options, size) -> None:
    model = timm.create_model(name, **options)
    for given in (model, torch.nn.Sequential(model)):
        transform, config = preprocessing(given)
        assert config["input_size"] == (3, *size)
        assert transform(Image.new("RGB", (300, 200))).shape == (3, *size)
