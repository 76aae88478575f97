"""Create the figures of the documentation, from public-domain images of scikit-image and the bundled scenes.

    python docs/pictures/make.py --checkpoint deit_tiny_patch16_224.safetensors

The weights are those of DeiT-tiny (`deit_tiny_patch16_224`), which timm downloads if no file is given. Scenes are
explained with the bundled model.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from skimage import data
from torch import nn

import captum_astro
from captum_astro import TokenGradCAM, ViTAGradCAM, explain, viz
from captum_astro.data.scenes import Scenes, batch
from captum_astro.models import bundled
from captum_astro.models.loading import class_names, load_model, preprocessing

HERE = Path(__file__).parent
COLOURS = 256
GALLERY = {"cat": data.chelsea, "espresso": data.coffee, "rocket": data.rocket, "astronaut": data.astronaut}

# the rows of each method's figure: label, constructor options, options of `attribute`
ROWS: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "VTranM": [
        ("as published", {}, {}),
        ("gain 3, length", {}, {"components": ("length",), "output": "logit", "gain": 3}),
    ],
    "TransformerMM": [("as published", {}, {})],
    "ProjectedFlow": [("probability", {}, {}), ("logit", {}, {"output": "logit"})],
    "AttentionRollout": [("start_layer=0", {}, {}), ("start_layer=1", {}, {"start_layer": 1})],
    "RawAttention": [("last layer", {}, {}), ("first layer", {}, {"layers": [0]})],
    "LeGrad": [("as published", {}, {}), ("class token", {}, {"averaged": False})],
    "AGCAM": [("as published", {}, {})],
    "InFlow": [("as published", {}, {})],
    "BeyondIntuition": [("by tokens", {}, {}), ("by heads", {}, {"form": "heads"})],
    "GMAR": [("L1", {}, {}), ("L2", {}, {"size": "l2"})],
    "ATTCAT": [("as published", {}, {}), ("readout_row", {}, {"readout_row": True})],
    "AttentionGradCAM": [("as published", {}, {}), ("without relu", {}, {"relu_attributions": False})],
    "TokenGradCAM": [("blocks[-1].norm1", {}, {}), ("without relu", {}, {"relu_attributions": False})],
    "TokenGradCAMPlusPlus": [("blocks[-1].norm1", {}, {})],
    "ViTAGradCAM": [("attn.proj", {}, {}), ("mlp.fc1", {"modulated_layer": "blocks.0.mlp.fc1"}, {})],
    "ViTAGradCAMPlusPlus": [("attn.proj", {}, {}), ("mlp.fc1", {"modulated_layer": "blocks.0.mlp.fc1"}, {})],
    "LRP": [("pixels, pooled", {}, {}), ("patches", {}, {"attribute_to": "grid"})],
    "ConservativeLRP": [("pixels, pooled", {}, {}), ("patches", {}, {"attribute_to": "grid"})],
    "AttnLRP": [("pixels, pooled", {}, {}), ("patches", {}, {"attribute_to": "grid"})],
    "TransformerAttribution": [("as published", {}, {})],
    "ViTCX": [("as published", {}, {}), ("distance 0.05", {}, {"distance": 0.05})],
}


@dataclass
class Explained:
    """Images for one model: its inputs, the displayed images, the explained classes and their names."""

    model: nn.Module
    x: torch.Tensor
    pixels: torch.Tensor
    target: torch.Tensor
    titles: list[str]


def photographs(checkpoint: Path | None, *arrays: Any) -> Explained:
    """Photographs and DeiT-tiny's top predictions."""
    model = load_model("deit_tiny_patch16_224", checkpoint=checkpoint)
    transform, config = preprocessing(model)
    x = torch.stack([transform(Image.fromarray(array)) for array in arrays])
    with torch.no_grad():
        probabilities = model(x).softmax(-1)
    top, names = probabilities.argmax(1), class_names(model, 1000)
    titles = [f"{names[i].split(',')[0]} {p[i]:.0%}" for i, p in zip(top, probabilities, strict=True)]
    return Explained(model, x, viz.displayable(x, config["mean"], config["std"]), top, titles)


def scenes(count: int) -> Explained:
    """Scenes, and their digits."""
    model = load_model(bundled.PLAIN)
    images, labels, _ = batch(Scenes("test", count), range(count))
    titles = [f"digit {label}" for label in labels.tolist()]
    return Explained(model, (images - 0.5) / 0.5, images, labels, titles)


def method_picture(name: str, shown: list[Explained]) -> Figure:
    """One row of images, then one row per variant of a method."""
    method, forms = getattr(captum_astro, name), ROWS[name]
    columns = sum(len(part.x) for part in shown)
    figure = Figure(figsize=(columns * 1.55, (1 + len(forms)) * 1.6 + 0.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(forms), columns, squeeze=False)
    start = 0
    for part in shown:
        for index, title in enumerate(part.titles):
            axes[0][start + index].imshow(part.pixels[index].permute(1, 2, 0).numpy())
            axes[0][start + index].set_title(title, fontsize=9)
            axes[0][start + index].set_axis_off()
        for row, (label, building, calling) in enumerate(forms, 1):
            maps = method(part.model, **building).attribute(part.x, target=part.target, **calling)
            if maps.shape[-1] != part.x.shape[-1]:
                maps = F.interpolate(maps, part.x.shape[-2:], mode="nearest")
            for index in range(len(part.x)):
                ax = viz.overlay(maps[index], part.pixels[index], axes[row][start + index])
                if start + index == 0:
                    ax.text(-0.06, 0.5, label, rotation=90, va="center", ha="right", fontsize=8, transform=ax.transAxes)
        start += len(part.x)
    return figure


def every_method(model: nn.Module, photograph: Image.Image) -> Figure:
    """A photograph, followed by the map of every method, three in a row."""
    results = list(explain(model, photograph, "all", crop="none"))
    rows = -(-(1 + len(results)) // 3)
    height = 3 * photograph.height / photograph.width + 0.3
    figure = Figure(figsize=(9, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 3).flat
    for ax in axes:
        ax.set_axis_off()
    axes[0].imshow(photograph)
    axes[0].set_title(str(results[0].classes[0]))
    for ax, result in zip(axes[1:], results, strict=False):
        result.plot(ax=ax, title=result.options["method"], colorbar=False)
    return figure


def write(figure: Figure, path: Path, dpi: int) -> None:
    """A small picture: a JPEG, or a PNG with a palette, which is sufficient for photographs of this size."""
    whole = io.BytesIO()
    figure.savefig(whole, dpi=dpi)
    picture = Image.open(whole).convert("RGB")
    if path.suffix == ".jpg":
        picture.save(path, quality=85, optimize=True)
    else:
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Write ``cat.jpg``, ``first.jpg``, ``vita.png``, ``gallery/*.jpg`` and ``methods/*.png`` next to this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    args = parser.parse_args()
    Image.fromarray(data.chelsea()).save(HERE / "cat.jpg", quality=85)
    first = photographs(args.checkpoint, data.chelsea(), data.rocket(), data.coffee())
    x, top = first.x, first.target
    shown = [Image.fromarray(array) for array in (data.chelsea(), data.rocket(), data.coffee())]
    maps = explain(first.model, shown, ["VTranM", "TransformerMM", "AttnLRP"], crop="none")
    write(maps.plot(), HERE / "first.jpg", 90)
    for name, photograph in GALLERY.items():
        write(every_method(first.model, Image.fromarray(photograph())), HERE / "gallery" / f"{name}.jpg", 90)
    maps = {
        "Grad-CAM": TokenGradCAM(first.model).attribute(x, target=top),
        "ViTA, attn.proj": ViTAGradCAM(first.model).attribute(x),
        "ViTA, mlp.fc1": ViTAGradCAM(first.model, modulated_layer="blocks.0.mlp.fc1").attribute(x),
    }
    write(viz.compare(first.pixels, maps, first.titles, size=2.2), HERE / "vita.png", 75)
    shown = [scenes(2), photographs(args.checkpoint, data.chelsea(), data.coffee())]
    for name in ROWS:
        write(method_picture(name, shown), HERE / "methods" / f"{name.lower()}.png", 100)


if __name__ == "__main__":
    main()
