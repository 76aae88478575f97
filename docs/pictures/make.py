"""Make the pictures of the documentation from public-domain images of scikit-image.

    python docs/pictures/make.py --checkpoint deit_tiny_patch16_224.safetensors

The weights are DeiT-tiny's (`deit_tiny_patch16_224`), which timm fetches when no file is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from skimage import data

from captum_astro import TokenGradCAM, ViTAGradCAM, VTranM, viz
from captum_astro.models.loading import class_names, load_model, preprocessing


def main() -> None:
    """Write ``vtranm.png`` and ``vita.png`` beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    args = parser.parse_args()
    model = load_model("deit_tiny_patch16_224", checkpoint=args.checkpoint)
    transform, config = preprocessing(model)
    pictures = [Image.fromarray(array) for array in (data.chelsea(), data.rocket(), data.coffee())]
    x = torch.stack([transform(picture) for picture in pictures])
    with torch.no_grad():
        probabilities = model(x).softmax(-1)
    top = probabilities.argmax(1)
    names = class_names(model, 1000)
    maps = {
        "VTranM": VTranM(model).attribute(x, target=top),
        "VTranM, gain 3, length only": VTranM(model).attribute(
            x, target=top, components=("length",), output="logit", gain=3
        ),
    }
    titles = [f"{names[i].split(',')[0]} {p[i]:.0%}" for i, p in zip(top, probabilities, strict=True)]
    pixels, here = viz.displayable(x, config["mean"], config["std"]), Path(__file__).parent
    viz.compare(pixels, maps, titles, size=2.4).savefig(here / "vtranm.png", dpi=90)
    maps = {
        "Grad-CAM": TokenGradCAM(model).attribute(x, target=top),
        "ViTA, attn.proj": ViTAGradCAM(model).attribute(x),
        "ViTA, mlp.fc1": ViTAGradCAM(model, modulated_layer="blocks.0.mlp.fc1").attribute(x),
    }
    viz.compare(pixels, maps, titles, size=2.2).savefig(here / "vita.png", dpi=90)


if __name__ == "__main__":
    main()
