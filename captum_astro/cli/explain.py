"""``captum-astro explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from captum_astro.cli._astrocytes import Vita, modulated
from captum_astro.cli._common import Checkpoint, Device, Ema, Model, Pretrained
from captum_astro.cli._network import network
from captum_astro.cli._terminal import console


def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders with images.")],
    model: Model = "vit_base_patch16_224",
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = True,
    ema: Ema = True,
    method: Annotated[list[str] | None, typer.Option(help="A method, or 'all'; repeatable.")] = None,
    target: Annotated[str, typer.Option(help="The class to explain: its index or name, or top1.")] = "top1",
    out: Annotated[Path, typer.Option(help="Folder for figures and maps.")] = Path("maps"),
    vita: Vita = None,
    device: Device = "cpu",
) -> None:
    """Write a figure and the raw map of each image, and print its top classes."""
    import numpy as np
    import torch

    from captum_astro import viz
    from captum_astro.attr.explainers import explainers_named
    from captum_astro.attr.vita_grad_cam import ViTAGradCAM
    from captum_astro.data.image_error import ImageError
    from captum_astro.data.images import find_images, open_image
    from captum_astro.models.loading import class_names, preprocessing

    chosen = explainers_named(method or ["VTranM"])
    if vita is not None:  # except for methods that add their own astrocytes
        chosen = {name: one for name, one in chosen.items() if not issubclass(one.method, ViTAGradCAM)}
        if not chosen:
            raise ValueError("--vita: ViTAGradCAM adds its own astrocytes; explain with TokenGradCAM instead.")
    paths = find_images(images)
    classifier = network(model, checkpoint, pretrained, ema, device)
    if checkpoint is None and not pretrained:
        console.print("The weights are random: the maps are meaningless.", style="yellow")
    transform, config = preprocessing(classifier)
    explained = classifier if vita is None else modulated(classifier, vita)
    explainers = {name: explainer.method(explained) for name, explainer in chosen.items()}
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: give a folder.")
    out.mkdir(parents=True, exist_ok=True)
    names, failures = _output_names(paths), []
    for path in track(paths, description="Explaining", console=console, disable=len(paths) < 2):
        try:
            x = transform(open_image(path))[None].to(device)
        except ImageError as error:
            failures.append(str(error))
            continue
        with torch.no_grad():
            probabilities = classifier(x).float().softmax(-1)[0]
        labels = class_names(classifier, len(probabilities))
        index = _target(target, probabilities, labels)
        top = ", ".join(
            f"{_short(labels[i])} {probabilities[i]:.0%}" for i in probabilities.topk(min(3, len(labels))).indices
        )
        console.print(f"{path.name}: {top}")
        maps = {}
        for name, explainer in explainers.items():
            maps[name] = explainer.attribute(x, target=index, attribute_to="pixels")
            np.save(out / f"{names[path]}_{name}.npy", maps[name][0, 0].float().cpu().numpy())
        picture = viz.displayable(x.cpu(), config["mean"], config["std"])
        figure = viz.compare(
            picture, maps, [f"{_short(labels[index])} {probabilities[index]:.0%}"], size=3.0, columns=5
        )
        figure.savefig(out / f"{names[path]}_explained.png")
    console.print(f"{len(paths) - len(failures)} images explained, in {out}")
    if failures:
        raise ImageError("\n".join(["could not be opened:", *failures]))


def _target(target: str, probabilities: Any, labels: list[str]) -> int:
    if target == "top1":
        return int(probabilities.argmax())
    if target.lstrip("-").isdigit():
        index = int(target)
        if not 0 <= index < len(labels):
            raise ValueError(f"--target {index}: the model's classes run from 0 to {len(labels) - 1}.")
        return index
    wanted = target.strip().lower()
    found = [i for i, label in enumerate(labels) if wanted in (part.strip().lower() for part in label.split(","))]
    if len(found) != 1:
        raise ValueError(f"--target {target!r}: {len(found)} classes have that name; give the index.")
    return found[0]


def _short(label: str) -> str:
    """The first name of a class: ImageNet has several."""
    return label.split(",", maxsplit=1)[0]


def _output_names(paths: list[Path]) -> dict[Path, str]:
    """File names without extension, made unique where two files share one."""
    stems = {path.stem for path in paths}
    taken: set[str] = set()
    counts: dict[str, int] = {}  # of each stem so far: the next number to try
    names = {}
    for path in paths:
        name, count = path.stem, counts.get(path.stem, 1)
        while name in taken or (count > 1 and name in stems and name != path.stem):
            count += 1
            name = f"{path.stem}-{count}"
        counts[path.stem] = count
        taken.add(name)
        names[path] = name
    return names
