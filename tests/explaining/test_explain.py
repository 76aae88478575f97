from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import captum_astro
from captum_astro import UnsupportedModelError, ViTA, explain, explainers
from captum_astro.attr.explainers import explainers_named
from captum_astro.data.image_error import ImageError
from captum_astro.explaining.result import Result, Results
from captum_astro.models.astromorphic_text import AstromorphicTextClassifier
from captum_astro.models.loading import load_model

SHARED = Path(__file__).parents[3] / "shared" / "data"
SIGNED_PIXELS = {"LRP", "ConservativeLRP", "AttnLRP"}
SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}


def _model(classes: int = 3, **changes: object) -> nn.Module:
    model = timm.create_model("vit_tiny_patch16_224", **SMALL, num_classes=classes, **changes)
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_pct": 1.0}
    return model.eval()


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    Image.effect_noise((48, 32), 90).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def _one(*arguments: object, **options: object) -> Result:
    found = explain(*arguments, **options)
    assert isinstance(found, Result)
    return found


@pytest.mark.parametrize("name", [explainer.name for explainer in explainers()])
def test_every_method_gives_what_its_class_gives(name: str) -> None:
    model, x = _model(), torch.rand(1, 3, 16, 16)
    result = _one(model, x[0], name, target=1)
    method = getattr(captum_astro, name)(model)
    expected = method.attribute(x, target=1)
    assert torch.equal(result.attributions, expected)
    if name in SIGNED_PIXELS:
        patches = expected.sum(1).reshape(2, 8, 2, 8).sum((1, 3))
        torch.testing.assert_close(result.grid, patches)
    else:
        assert torch.equal(result.grid, method.attribute(x, target=1, attribute_to="grid")[0, 0])
    assert (result.patch == (8, 8)) is (name in SIGNED_PIXELS)
    with torch.no_grad():
        probabilities = model(x).softmax(-1)[0]
    assert [c.probability for c in result.classes] == probabilities.sort(descending=True).values.tolist()
    assert result.target.probability == float(probabilities[1])
    assert result._repr_png_().startswith(b"\x89PNG")


def test_an_image_in_every_form(photograph: Path) -> None:
    model, image = _model(), Image.open(photograph)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    results = [_one(model, given, target=2) for given in (photograph, str(photograph), image, pixels)]
    for result in results:
        assert torch.equal(result.attributions, results[0].attributions)
        assert np.array_equal(np.asarray(result.image), np.asarray(image))
        assert result.crop.box == (8, 0, 40, 32)
    x = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)(image)
    x = torch.nn.functional.interpolate(x[None], 16)[0]
    result = _one(model, x, target=2)
    assert torch.equal(result.attributions, captum_astro.VTranM(model).attribute(x[None], target=2))
    config = timm.data.resolve_model_data_config(model)
    shown = x * torch.tensor(config["std"])[:, None, None] + torch.tensor(config["mean"])[:, None, None]
    assert np.abs(np.asarray(result.image) / 255 - shown.permute(1, 2, 0).numpy()).max() < 1e-2


def test_lists_are_combined() -> None:
    model, images = _model(), torch.rand(2, 3, 16, 16)
    results = explain(model, images, ["VTranM", "AttnLRP:output=probability"], target=[0, None])
    assert isinstance(results, Results)
    top = [results[0].classes[0].index, results[4].classes[0].index]
    seen = [(r.options["method"], r.target.index) for r in results]
    methods = ("VTranM", "AttnLRP:output=probability")
    assert seen == [(method, target) for first in top for target in (0, first) for method in methods]
    assert results[1].options["options"] == {"output": "probability"}
    assert len(results.plot(colorbar=False).axes) == 10
    assert isinstance(results[2:], Results)
    for single in (explain(model, [images[0]]), explain(model, images[0], ["VTranM"]), explain(model, images[:1])):
        assert isinstance(single, Results)
        assert len(single) == 1
    assert len(explain(model, images[0], "all")) == len(explainers_named(["all"]))


def test_all_is_what_the_model_has() -> None:
    model, x = timm.create_model("resnet10t", num_classes=3).eval(), torch.rand(3, 64, 64)
    with pytest.warns(UserWarning, match="VTranM is left out: ") as said:
        found = {result.options["method"] for result in explain(model, x, "all")}
    left = {str(one.message).split()[0] for one in said if "left out" in str(one.message)}
    assert found >= {"TokenGradCAM", "AttnLRP", "ConservativeLRP", "LRP"}
    assert found | left == {*explainers_named(["all"])}
    with pytest.raises(UnsupportedModelError):
        explain(model, x, "VTranM")


def test_models_under_vita_say_so(tmp_path: Path) -> None:
    model, x = _model(), torch.rand(3, 16, 16)
    plain, modulated = _one(model, x, "VTranM", 0), _one(ViTA(model, k=4), x, "VTranM", 0)
    assert modulated.classes == plain.classes
    assert (plain.title, modulated.title) == (
        f"VTranM: {plain.target}",
        f"VTranM under ViTA: {plain.target}",
    )
    assert (plain.record["vita"], modulated.record["vita"]["k"]) == (None, 4)
    assert modulated.plot().axes[1].get_title().replace("\n", " ") == modulated.title
    with ViTA(model, k=4):
        opened = _one(model, x, "VTranM", 0)
    for other in (opened, _one(nn.Sequential(ViTA(model, k=4)), x, "VTranM", 0)):
        assert (other.record["vita"], other.title) == (modulated.record["vita"], modulated.title)
        assert other.classes == plain.classes
        torch.testing.assert_close(other.attributions, modulated.attributions)
    with pytest.warns(UserWarning, match="BeyondIntuition is left out: .* form='heads'"):
        named = {r.options["method"] for r in explain(ViTA(model), x, "all")}
    assert named == {*explainers_named(["all"])} - {"ViTAGradCAM", "ViTAGradCAMPlusPlus", "BeyondIntuition"}
    with pytest.raises(ValueError, match="adds its own astrocytes"):
        explain(ViTA(model), x, "ViTAGradCAM")


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_files_say_how_they_were_made(ending: str, photograph: Path, tmp_path: Path) -> None:
    result = _one(_model(), photograph, "VTranM:output=logit", target=1, names=["a", "b, or c", "d"])
    file = tmp_path / f"map.{ending}"
    result.save(file, cmap="magma", limits=0.5)
    first = file.read_bytes()
    record = json.loads((tmp_path / f"map.{ending}.json").read_text())
    assert record == {**json.loads(json.dumps(result.record)), "style": {"cmap": "magma", "limits": 0.5}}
    assert record["model"]["name"] == "vit_tiny_patch16_224"
    assert record["maps"][0]["options"] == {"output": "logit"}
    assert record["maps"][0]["target"] == {"index": 1, "name": "b, or c", "probability": result.target.probability}
    assert record["versions"]["torch"] == torch.__version__
    assert (
        record["model"]["weights"]
        in {
            "png": lambda: Image.open(file).text["Description"],
            "pdf": lambda: first.decode("latin-1"),
            "svg": first.decode,
        }[ending]()
    )
    result.save(file, cmap="magma", limits=0.5)
    assert file.read_bytes() == first


def test_pictures_have_the_resolution_of_the_image(photograph: Path, tmp_path: Path) -> None:
    Image.effect_noise((1200, 900), 90).save(photograph)
    result = _one(_model(), photograph)
    result.save(tmp_path / "map.png", colorbar=False)
    width, height = Image.open(tmp_path / "map.png").size
    assert 2400 < width < 2550
    assert 900 < height < 1150
    result.save(tmp_path / "map.pdf")
    assert b"/Width 1200" in (tmp_path / "map.pdf").read_bytes()


def test_a_picture_on_axes_of_ones_own() -> None:
    result = _one(_model(), torch.rand(3, 16, 16), "AttnLRP")
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert result.plot(ax=ax, title="mine") is figure
    assert ax.get_title() == "mine"
    drawn = np.asarray(ax.images[1].get_array())
    summed = torch.nn.functional.interpolate(result.grid[None, None], 16, mode="bilinear")[0, 0]
    np.testing.assert_allclose(drawn, summed.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("bands", "said"), [(None, "mean of 13 bands"), ((3, 2, 1), "bands 3, 2, 1"), ([12], "band 12")]
)
def test_any_number_of_channels(bands: object, said: str) -> None:
    model, x = _model(in_chans=13), torch.randn(13, 16, 16)
    result = _one(model, x, bands=bands)
    assert result.attributions.shape == (1, 13, 16, 16)
    shown = np.asarray(result.image)
    low, high = np.percentile(x.numpy(), (2, 98), axis=(1, 2), keepdims=True)
    stretched = ((x.numpy() - low) / (high - low)).clip(0, 1)
    expected = stretched.mean(0, keepdims=True) if bands is None else stretched[list(bands)]
    assert np.abs(shown / 255 - expected.transpose(1, 2, 0)).max() < 0.01
    assert result.plot().axes[0].get_title() == f"{result.classes[0]}\n{said}"
    assert result.record["maps"][0]["image"]["bands"] == said


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"images": "nowhere.png"}, ImageError, "nowhere.png: there is no such file"),
        ({"images": np.zeros((8, 8, 3))}, TypeError, r"not ndarray: of an array make one with PIL.Image.fromarray"),
        ({"images": torch.rand(16, 16)}, ValueError, r"must be \(C, H, W\).*not \(16, 16\)"),
        ({"images": torch.zeros(4, 16, 16, dtype=torch.uint8)}, ValueError, r"bytes must be \(3, H, W\) or"),
        ({"images": torch.full((3, 16, 16), torch.nan)}, ValueError, "contains NaN"),
        ({"images": torch.rand(5, 16, 16)}, ValueError, r"takes 3 channels, and the image has 5: pass .* \(3, H, W\)"),
        ({"images": []}, ValueError, "There is no image"),
        ({"method": []}, ValueError, "The list of methods is empty"),
        ({"method": "Magic"}, ValueError, "There is no method 'Magic'"),
        ({"target": []}, ValueError, "The list of targets is empty"),
        ({"target": 3}, ValueError, "target 3: the model's classes run from 0 to 2"),
        ({"target": -1}, ValueError, "target -1: the model's classes run from 0 to 2"),
        ({"target": True}, ValueError, "target must be the index or name of a class, or a list of them, not True"),
        ({"target": "cat"}, ValueError, "target 'cat': no class has that name; give the index, from 0 to 2"),
        ({"crop": "timm"}, ValueError, "crop must be center, squash or none, not 'timm'"),
        ({"names": ["a"]}, ValueError, "names has 1 names, and the model 3 classes"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        explain(_model(), **{"images": torch.rand(3, 16, 16), **options})


def test_models_that_cannot_be_explained() -> None:
    with pytest.raises(UnsupportedModelError, match="no layout"):
        explain(timm.create_model("resnet10t", num_classes=3).eval(), torch.rand(3, 32, 32))
    with pytest.raises(ValueError, match="reads text: call a method's attribute instead"):
        explain(AstromorphicTextClassifier(vocabulary=9, num_classes=2, dim=8, num_heads=2).eval(), torch.rand(3, 8, 8))


def test_a_model_without_a_layout_by_grad_cam() -> None:
    result = _one(timm.create_model("resnet10t", num_classes=3).eval(), torch.rand(3, 64, 64), "TokenGradCAM")
    assert result.grid.shape == (2, 2)


def test_nothing_of_the_users_changes() -> None:
    model, x = _model(), torch.rand(3, 16, 16)
    model.train()
    state, kept = {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    explain(model, x)
    assert model.training
    assert torch.equal(x, kept)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_image_itself_is_not_overwritten(photograph: Path) -> None:
    kept = photograph.read_bytes()
    with pytest.raises(ValueError, match=r"photo.png is the image itself: choose another name"):
        _one(_model(), photograph).save(photograph)
    with pytest.raises(ValueError, match=r"photo.jpg: the name of a picture must end in .png, .pdf or .svg"):
        _one(_model(), photograph).save(photograph.with_suffix(".jpg"))
    assert photograph.read_bytes() == kept


def test_the_package_does_not_import_matplotlib() -> None:
    code = "import captum_astro, sys; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.skipif(not SHARED.exists(), reason="DeiT-tiny's weights and photographs with masks are not at hand")
@pytest.mark.parametrize("method", sorted(SIGNED_PIXELS))
def test_signed_maps_are_visible_on_the_object(method: str) -> None:
    model = load_model("deit_tiny_patch16_224", checkpoint=SHARED / "deit_tiny_patch16_224.safetensors")
    shares = []
    for file in sorted((SHARED / "masks" / "images").glob("*.jpg"))[:24:4]:
        ax = _one(model, file, method, crop="squash").plot(colorbar=False).axes[1]
        mask = Image.open(SHARED / "masks" / "masks" / f"{file.stem}.png").resize((224, 224), Image.Resampling.NEAREST)
        strength = np.abs(np.asarray(ax.images[1].get_array())) / ax.images[1].get_clim()[1]
        shares.append((strength[np.asarray(mask) > 0] > 0.2).mean())
    assert np.median(shares) >= 0.15


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_pil_images_of_every_mode_are_shown_as_their_files(mode: str, tmp_path: Path) -> None:
    grey = Image.effect_noise((16, 16), 90)
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(128)
    file = tmp_path / f"image.{'tif' if mode == 'CMYK' else 'png'}"
    image.save(file)
    model = _model()
    shown = [np.asarray(_one(model, given).image) for given in (image, file)]
    assert shown[0].shape == (16, 16, 3)
    assert np.array_equal(*shown)


def test_a_large_photograph_is_reduced_in_a_png_and_the_record_says_so(tmp_path: Path) -> None:
    half = np.zeros((1000, 2000, 3), np.uint8)
    half[:, 1000:] = 255
    result = _one(_model(), Image.fromarray(half), target=1)
    result.save(tmp_path / "map.png")
    record = json.loads((tmp_path / "map.png.json").read_text())
    assert record["maps"][0]["image"] == {"file": None, "width": 2000, "height": 1000}
    assert record["longest_side_reduced_to"] == 1800
    row = np.asarray(Image.open(tmp_path / "map.png").convert("L"))[-300]
    first = slice(int(0.06 * 600) + 5, int(3.06 * 600) - 5)  # the first panel, of 3 inches
    assert (row[first] == 0).sum() + (row[first] == 255).sum() > 1700
    assert abs(int(np.flatnonzero(np.diff(row[first].astype(int)) > 100)[0]) - 895) < 5
    result.save(tmp_path / "map.pdf")
    assert "longest_side_reduced_to" not in json.loads((tmp_path / "map.pdf.json").read_text())
    assert b"/Width 2000" in (tmp_path / "map.pdf").read_bytes()
