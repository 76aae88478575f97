from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from captum_astro import explainers
from captum_astro.attr.explainers import explainers_named
from captum_astro.cli.explain import explain
from captum_astro.data.scenes import Scenes
from captum_astro.models.loading import load_model
from tests.commands import run_command

BUNDLED = ("--model", "scenes_vit_tiny_patch4_64")
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = (Scenes("test", 1)[0].image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def test_explain(monkeypatch, capsys, tmp_path: Path, scene: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "scene.png").write_bytes(scene.read_bytes())
    code, out = run_command(
        monkeypatch, capsys, "explain", scene, tmp_path / "more", "--model", "scenes_vit_tiny_patch4_64",
        "--out", tmp_path / "maps", "--target", "5", "--method", "all",
    )  # fmt: skip
    assert code == 0, out
    assert "2 images explained" in out
    for name in ("scene", "scene-2"):
        assert Image.open(tmp_path / "maps" / f"{name}_explained.png").size[0] > 300
        for explainer in explainers_named(["all"]).values():
            values = np.load(tmp_path / "maps" / f"{name}_{explainer.name}.npy")
            assert values.shape == (64, 64)
            assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "vit_tinny_patch16_224"], "Did you mean vit_tiny_patch16_224"),
        (["--model", "scenes_vit_tiny_patch4_64", "--target", "10"], "run from 0 to 9"),
        (
            ["--model", "scenes_vit_tiny_patch4_64", "--target", "cat"],
            "no class has that name; give the index",
        ),
        (["--model", "scenes_vit_tiny_patch4_64", "--method", "Magic"], "There is no method 'Magic'. Methods: "),
        (["--model", "resnet18", "--no-pretrained"], "ResNet has no layout"),
        (["--model", "vit_tiny_patch16_224", "--checkpoint", "{other}"], "does not match vit_tiny_patch16_224"),
        (
            ["--model", "vit_tiny_patch16_224", "--checkpoint", "{pickle}"],
            "pickle.pth holds pathlib.Path, and only tensors are read",
        ),
        (["--model", "vit_tiny_patch16_224", "--checkpoint", "nowhere.pt"], "nowhere.pt: there is no such file"),
    ],
)
def test_errors_are_one_line(monkeypatch, capsys, tmp_path: Path, scene: Path, words, message: str) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    torch.save({"code": Path}, tmp_path / "pickle.pth")
    files = {"other": tmp_path / "other.safetensors", "pickle": tmp_path / "pickle.pth"}
    words = [word.format(**files) for word in words]
    code, out = run_command(monkeypatch, capsys, "explain", scene, "--out", tmp_path / "maps", *words)
    assert code == 1
    assert message in out.replace("\n", " ")
    assert "Traceback" not in out


def test_raw_or_averaged_weights_of_a_checkpoint(monkeypatch, capsys, tmp_path: Path, scene: Path) -> None:
    name = "scenes_vit_tiny_patch4_64"
    good, bad = (load_model(name, pretrained=pretrained, num_classes=10).state_dict() for pretrained in (True, False))
    torch.save({"epoch": 3, "model": bad, "model_ema": good}, tmp_path / "last.pt")
    words = ["explain", scene, "--model", name, "--checkpoint", tmp_path / "last.pt", "--out", tmp_path / "maps"]
    published = run_command(monkeypatch, capsys, "explain", scene, "--model", name, "--out", tmp_path / "maps")[1]
    said = f"{tmp_path}/last.pt has raw and averaged weights: "
    code, out = run_command(monkeypatch, capsys, *words)
    assert (code, out) == (0, f"{said}model_ema is loaded; --no-ema loads model.\n{published}")
    code, out = run_command(monkeypatch, capsys, *words, "--no-ema")
    assert code == 0, out
    assert out.startswith(f"{said}model is loaded; --ema loads model_ema.\n")
    assert published not in out


def test_messages_name_the_options(monkeypatch, capsys, scene: Path) -> None:
    def offline(*arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    code, out = run_command(monkeypatch, capsys, "explain", scene, "--model", "vit_tiny_patch16_224")
    assert code == 1
    assert "Give a file with --checkpoint FILE, or ask for random weights with --no-pretrained." in out


def test_one_bad_image_does_not_stop_the_others(monkeypatch, capsys, tmp_path: Path, scene: Path) -> None:
    (tmp_path / "bad.png").write_text("no image")
    code, out = run_command(
        monkeypatch, capsys, "explain", tmp_path, "--model", "scenes_vit_tiny_patch4_64", "--out", tmp_path / "maps"
    )
    assert code == 1
    assert "1 image explained" in out
    assert "bad.png: not an image" in out
    assert (tmp_path / "maps" / "scene_explained.png").exists()


@pytest.mark.parametrize("ending", ["_VTranM.npy", "_explained.png"])
def test_explain_writes_through_no_link(monkeypatch, capsys, tmp_path: Path, scene: Path, ending: str) -> None:
    out, other = tmp_path / "maps", tmp_path / "other"
    out.mkdir()
    other.write_text("kept")
    (out / f"{scene.stem}{ending}").symlink_to(other)
    code, said = run_command(
        monkeypatch, capsys, "explain", scene, "--model", "test_vit", "--no-pretrained", "--out", out
    )
    assert code == 1
    assert "is a link, and only a regular file is replaced" in said
    assert other.read_text() == "kept"


def test_nothing_to_explain(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setitem(explain.__globals__, "network", None)  # no model is loaded, which may take minutes
    code, out = run_command(
        monkeypatch, capsys, "explain", tmp_path / "a.png", "--model", "test_vit", "--no-pretrained", "--out",
        tmp_path / "maps",
    )  # fmt: skip
    assert code == 1
    assert f"error: 1 image could not be opened:\n{tmp_path / 'a.png'}: there is no such file.\n" in out
    assert "explained" not in out
    assert not (tmp_path / "maps").exists()


def test_methods_with_options(monkeypatch, capsys, tmp_path: Path, scene: Path) -> None:
    words = ("explain", scene, *BUNDLED, "--out", tmp_path, "--method", "VTranM", "--method")
    code, out = run_command(monkeypatch, capsys, *words, "vtranm:output=logit")
    assert code == 0, out
    plain, logit = (np.load(tmp_path / f"scene_VTranM{more}.npy") for more in ("", "_output=logit"))
    assert not np.allclose(plain, logit)
    code, out = run_command(monkeypatch, capsys, *words, "VTranM:output=odds")
    assert code == 1
    assert "VTranM: output must be probability or logit, not 'odds'." in out


def test_out_of_memory(monkeypatch, capsys, tmp_path: Path, scene: Path) -> None:
    def too_large(*_: object, **__: object) -> None:
        torch.empty(10**14)

    monkeypatch.setattr("captum_astro.attr.vtranm.VTranM.attribute", too_large)
    code, out = run_command(monkeypatch, capsys, "explain", scene, *BUNDLED, "--out", tmp_path)
    assert code == 1
    assert "error: Out of memory: " in out
    assert "Choose a smaller model" in out
    monkeypatch.setattr("captum_astro.training.run.fit", too_large)
    code, out = run_command(monkeypatch, capsys, "train", "scenes", "--out", tmp_path / "run", "--steps", 1)
    assert code == 1
    assert "error: Out of memory: " in out


def test_nothing_is_overwritten(monkeypatch, capsys, tmp_path: Path, scene: Path) -> None:
    original = scene.read_bytes()
    Image.open(scene).save(tmp_path / "scene.jpg")
    Image.open(scene).save(tmp_path / "scene-2.png")
    code, out = run_command(
        monkeypatch, capsys, "explain", tmp_path, "--model", "scenes_vit_tiny_patch4_64", "--out", tmp_path
    )
    assert code == 0, out
    assert scene.read_bytes() == original
    assert sorted(p.name for p in tmp_path.glob("*_explained.png")) == [
        "scene-2_explained.png", "scene-3_explained.png", "scene_explained.png",
    ]  # fmt: skip
    assert len(list(tmp_path.glob("*.npy"))) == 3
    code, out = run_command(
        monkeypatch, capsys, "explain", scene, "--model", "test_vit", "--no-pretrained", "--out", scene
    )
    assert code == 1
    assert "is a file" in out


def test_check_and_methods(monkeypatch, capsys, tmp_path: Path) -> None:
    code, out = run_command(monkeypatch, capsys, "check", "test_vit")
    assert code == 0
    assert "passed at 1e-10" in out
    assert max(map(len, out.splitlines())) <= 80
    for explainer in explainers_named(["all"]).values():
        assert re.search(rf"^  {explainer.name} +exact +[\d.]+", out, re.MULTILINE)
    file = tmp_path / "report.json"
    words = ["check", "convnext_atto", "--methods", "VTranM,TokenGradCAM", "--out", file]
    code, out = run_command(monkeypatch, capsys, *words)
    assert code == 0
    assert "VTranM: refused. timm.models.convnext.ConvNeXt has no layout" in out
    assert "Use instead: TokenGradCAM." in out
    written = json.loads(file.read_text())
    assert [one["status"] for one in written["methods"]["outcomes"]] == ["refused", "exact"]
    assert "ConvNeXt has no layout" in written["refused"]
    code, out = run_command(monkeypatch, capsys, "check", "convnext_atto", "--methods", "none")
    assert code == 1
    assert "ConvNeXt has no layout" in out
    code, out = run_command(monkeypatch, capsys, "methods")
    assert code == 0
    assert all(explainer.name in out for explainer in explainers())


@pytest.mark.skipif(not SHARED.exists(), reason="DeiT-tiny's weights and the photographs are not at hand")
def test_photographs(monkeypatch, capsys, tmp_path: Path) -> None:
    pictures = [SHARED / "images" / f"{name}.jpg" for name in ("n02129165_lion", "n02391049_zebra", "n11939491_daisy")]
    code, out = run_command(
        monkeypatch, capsys, "explain", *pictures, "--model", "deit_tiny_patch16_224", "--no-pretrained",
        "--checkpoint", SHARED / "deit_tiny_patch16_224.safetensors", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, out
    assert "zebra.jpg: zebra" in out
    assert "daisy.jpg: daisy" in out


SMALL_GRID = ("--k", "4", "--tau", "2", "--phi=-0.5,0", "--alpha", "1.5", "--beta", "0.05")


def test_vita_search_and_evaluate(monkeypatch, capsys, tmp_path: Path, scene: Path) -> None:
    words = ("vita", "search", "--data", "scenes", *BUNDLED, *SMALL_GRID, "--limit", 8, "--out", tmp_path / "search",
             "--layer", "blocks.[0-1].attn.*", "--metric", "dice")  # fmt: skip
    code, out = run_command(monkeypatch, capsys, *words)
    assert code == 0, out
    assert "k=4,tau=2" in out
    best = (tmp_path / "search" / "best.csv").read_text()
    columns = "method,metric,setting,n,left_out,plain,modulated,difference,low,high,effect,p,p_holm,same_class"
    assert best.startswith(columns)
    assert run_command(monkeypatch, capsys, *words)[0] == 0
    assert (tmp_path / "search" / "best.csv").read_text() == best
    tried = pd.read_csv(tmp_path / "search" / "search.csv")["layer"].dropna()
    assert set(tried) == {f"blocks.{i}.attn.{name}" for i in (0, 1) for name in ("qkv", "proj")}
    assert len(pd.read_csv(tmp_path / "search" / "controls.csv")) == 2 * 5
    assert len(pd.read_csv(tmp_path / "search" / "curve.csv")) == 2 * 2
    assert (tmp_path / "search" / "curve.svg").read_text().startswith("<?xml")
    for name in "abc":
        shutil.copy(scene, tmp_path / f"{name}.png")
    lines = [f"{name}.png,7,10,10,40,40\n" for name in ("scene", *"abc")]
    Path(tmp_path, "boxes.csv").write_text("file,label,x0,y0,x1,y1\n" + "".join(lines))
    code, out = run_command(
        monkeypatch, capsys, "vita", "evaluate", "--data", f"boxes:{tmp_path}", *BUNDLED, "--vita", "k=4,tau=2",
        "--methods", "VTranM,TokenGradCAM", "--metrics", "ssim,iou", "--explained", "label", "--out", tmp_path / "one",
    )  # fmt: skip
    assert code == 0, out
    assert "VTranM" in out
    assert len((tmp_path / "one" / "compared.csv").read_text().splitlines()) == 5
    controls = (tmp_path / "one" / "controls.csv").read_text().splitlines()
    assert controls[0].startswith("method,metric,control,width,n,modulated,beside,difference,low,high,effect,p,p_holm")
    assert len(controls) == 1 + 2 * 2 * 5
    assert "Gains beyond each control, p (Holm) below 0.05, of 4: plain 0, centre" in out
    page = tmp_path / "page.md"
    words = ("vita", "report", tmp_path / "search", tmp_path / "one", "--title", "Scenes", "--out", page)
    code, out = run_command(monkeypatch, capsys, *words)
    assert code == 0, out
    assert (tmp_path / "page-search.svg").exists()
    assert "--data scenes --model=scenes_vit_tiny_patch4_64" in page.read_text()
    assert '--data "boxes:$DATA/test_vita' in page.read_text()
    assert str(tmp_path) not in page.read_text()


def test_explain_says_what_is_cropped(monkeypatch, capsys, tmp_path: Path, scene: Path) -> None:
    Image.open(scene).resize((128, 64)).save(scene)
    for crop, said in (("center", " (center crop: the model sees 50% of the image; --crop none shows it all)"),
                       ("squash", ""), ("none", "")):  # fmt: skip
        words = ("explain", scene, *BUNDLED, "--crop", crop, "--out", tmp_path / crop)
        code, out = run_command(monkeypatch, capsys, *words)
        assert code == 0, out
        assert out.splitlines()[0].endswith(f"%{said}")
        record = json.loads((tmp_path / crop / "scene_VTranM.npy.json").read_text())
        assert record["maps"][0]["crop"]["fit"] == crop
    code, out = run_command(monkeypatch, capsys, "explain", scene, *BUNDLED, "--crop", "timm")
    assert (code, "it must be center, squash or none, not 'timm'" in out) == (2, True)


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_explain_two_classes(monkeypatch, capsys, tmp_path: Path, scene: Path, form: str) -> None:
    words = ("explain", scene, *BUNDLED, "--target", "3", "--target", "8", "--format", form, "--out", tmp_path)
    code, out = run_command(monkeypatch, capsys, *words)
    assert code == 0, out
    written = {file.name for file in tmp_path.iterdir()} - {"scene.png"}
    names = ("scene_VTranM_class3.npy", "scene_VTranM_class8.npy", f"scene_explained.{form}")
    assert written == {name + more for name in names for more in ("", ".json")}
    record = json.loads((tmp_path / f"scene_explained.{form}.json").read_text())
    assert [one["target"]["index"] for one in record["maps"]] == [3, 8]


def test_explain_under_astrocytes(monkeypatch, capsys, tmp_path: Path, scene: Path) -> None:
    for name, more in (("plain", ()), ("vita", ("--vita", "k=4,tau=2,layer=blocks.1.mlp.fc1"))):
        code, out = run_command(monkeypatch, capsys, "explain", scene, *BUNDLED, "--out", tmp_path / name, *more)
        assert code == 0, out
    marked = "ViTA_k=4_tau=2_layer=blocks.1.mlp.fc1"
    files = ("plain/scene_VTranM.npy", f"vita/scene_VTranM_{marked}.npy")
    plain, vita = (np.load(tmp_path / file) for file in files)
    assert not np.allclose(plain, vita)
    assert (tmp_path / "vita" / f"scene_explained_{marked}.png").exists()
    records = [json.loads((tmp_path / f"{file}.json").read_text()) for file in files]
    assert [record["vita"] and record["vita"]["layer"] for record in records] == [None, "blocks.1.mlp.fc1"]
    words = ("explain", scene, *BUNDLED, "--vita", "k=4", "--method")
    code, out = run_command(monkeypatch, capsys, *words, "all", "--out", tmp_path / "[all]")
    assert code == 0, out
    assert "in " + str(tmp_path / "[all]") in out.replace("\n", "")
    assert not list((tmp_path / "[all]").glob("*_ViTAGradCAM*.npy"))
    assert (tmp_path / "[all]" / "scene_TokenGradCAM_ViTA_k=4.npy").exists()
    code, out = run_command(monkeypatch, capsys, *words, "ViTAGradCAM", "--out", tmp_path / "none")
    assert code == 1
    assert "adds its own astrocytes" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", "--data", "clickme"), "--data must be scenes, boxes:FOLDER or clickme:PATH, not 'clickme'"),
        (("search", "--data", "clickme:nowhere"), "nowhere"),
        (("search", "--data", "boxes:nowhere"), "nowhere"),
        (("search", "--data", "scenes", "--k", "4;6"), "--k must be a whole number, not '4;6'"),
        (("search", "--data", "scenes", "--tau", "0"), "tau must be a whole number of at least 1"),
        (("search", "--data", "scenes", "--layer", "blocks.9.mlp.fc1", "--limit", "1"), "no layer 'blocks.9.mlp.fc1'"),
        (("search", "--data", "scenes", "--layer", "blocks.[7-9].*"), "No linear layer of VisionTransformer matches"),
        (("evaluate", "--data", "scenes", "--vita", "kappa=3"), "--vita has no option 'kappa=3'. Options: k, tau"),
        (("evaluate", "--data", "scenes", "--vita", "k=six"), "--vita: k must be a whole number, not 'six'"),
        (("evaluate", "--data", "scenes", "--methods", "Magic"), "no method 'Magic'"),
        (("evaluate", "--data", "scenes", "--explained", "all"), "--explained must be predicted or label"),
    ],
)
def test_vita_invalid_options(monkeypatch, capsys, tmp_path: Path, words, message: str) -> None:
    code, out = run_command(monkeypatch, capsys, "vita", *words, *BUNDLED, "--out", tmp_path / "out")
    assert code == 1
    assert message in out
    assert "Traceback" not in out


def test_output_names_fit_into_a_file_system() -> None:
    from captum_astro.cli.explain import _output_names

    long = ["n" * 251, "n" * 250 + "o", "\N{SNOWMAN}" * 80]
    names = list(_output_names([Path(f"{name}.png") for name in long]).values())
    assert names == ["n" * 150, "n" * 150 + "-2", "\N{SNOWMAN}" * 50]


def test_output_names_are_unique_and_quick() -> None:
    from captum_astro.cli.explain import _output_names

    paths = [Path("a/x.png"), Path("b/x.png"), Path("a/x-2.png"), Path("c/x.png"), Path("c/y.png")]
    assert list(_output_names(paths).values()) == ["x", "x-3", "x-2", "x-4", "y"]
    many = [Path(f"{folder}/x.png") for folder in range(10_000)]
    began = time.process_time()
    assert len(set(_output_names(many).values())) == 10_000
    assert time.process_time() - began < 10
