"""``captum-astro explain``."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import track

from captum_astro.cli._astrocytes import Vita, modulated
from captum_astro.cli._common import Checkpoint, Device, Ema, Model, Pretrained, out_folder
from captum_astro.cli._network import network
from captum_astro.cli._terminal import console
from captum_astro.wording import counted

if TYPE_CHECKING:
    from captum_astro.attr.explainers import Configured

_LONGEST = 150  # bytes of a name


def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders with images.")],
    model: Model = "vit_base_patch16_224",
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = True,
    ema: Ema = True,
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method, or 'all'; repeatable; options after colons, as in VTranM:output=logit."),
    ] = None,
    target: Annotated[str, typer.Option(help="The class to explain: its index or name, or top1.")] = "top1",
    out: Annotated[Path, out_folder("Folder for figures and maps.")] = Path("maps"),
    vita: Vita = None,
    device: Device = "cpu",
) -> None:
    """Write a figure and the raw map of each image, and print its top classes."""
    import torch

    from captum_astro import viz
    from captum_astro.data.image_error import ImageError
    from captum_astro.data.images import find_images, open_image
    from captum_astro.models.loading import class_names, preprocessing
    from captum_astro.storage import write_whole

    chosen = _chosen(method or ["VTranM"])
    if vita is not None:  # except for methods that add their own astrocytes
        chosen = [one for one in chosen if not one.has_astrocytes]
        if not chosen:
            raise ValueError("--vita: ViTAGradCAM adds its own astrocytes; explain with TokenGradCAM instead.")
    paths = find_images(images)
    classifier = network(model, checkpoint, pretrained, ema, device)
    if checkpoint is None and not pretrained:
        console.print("The weights are random: the maps are meaningless.", style="yellow")
    transform, config = preprocessing(classifier)
    explained = classifier if vita is None else modulated(classifier, vita)
    explainers = [(one, one.explainer.method(explained, **one.building)) for one in chosen]
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
        out.mkdir(parents=True, exist_ok=True)
        for one, explainer in explainers:
            maps[one.name] = explainer.attribute(x, target=index, attribute_to="pixels", **one.calling)
            file = out / f"{names[path]}_{_in_a_file_name(one.name)}.npy"
            write_whole(file, partial(_save_array, maps[one.name][0, 0].float().cpu().numpy()))
        picture = viz.displayable(x.cpu(), config["mean"], config["std"])
        figure = viz.compare(
            picture, maps, [f"{_short(labels[index])} {probabilities[index]:.0%}"], size=3.0, columns=5
        )
        write_whole(out / f"{names[path]}_explained.png", partial(figure.savefig, format="png"))
    if len(paths) > len(failures):
        console.print(f"{counted(len(paths) - len(failures), 'image')} explained, in {out}")
    if failures:
        raise ImageError("\n".join([f"{counted(len(failures), 'image')} could not be opened:", *failures]))


def _save_array(array: Any, file: Path) -> None:
    import numpy as np

    with file.open("wb") as opened:  # given a name, NumPy would add its own ending
        np.save(opened, array)


def _chosen(words: list[str]) -> list[Configured]:
    """The methods, each once, in the order given."""
    from captum_astro.attr.explainers import configured, explainers

    every = [explainer.name for explainer in explainers()]
    names = [name for word in words for name in (every if word.strip().lower() == "all" else [word])]
    return list({one.name: one for one in map(configured, names)}.values())


def _in_a_file_name(method: str) -> str:
    """A method with its options, without the characters that a file name cannot contain."""
    return re.sub(r"[^\w.=+-]", "_", method)


def _target(target: str, probabilities: Any, labels: list[str]) -> int:
    if target == "top1":
        return int(probabilities.argmax())
    if target.lstrip("-").isdecimal():
        index = int(target)
        if not 0 <= index < len(labels):
            raise ValueError(f"--target {index}: the model's classes run from 0 to {len(labels) - 1}.")
        return index
    wanted = target.strip().lower()
    found = [i for i, label in enumerate(labels) if wanted in (part.strip().lower() for part in label.split(","))]
    if len(found) != 1:
        have = "no class has" if not found else f"{len(found)} classes have"
        raise ValueError(f"--target {target!r}: {have} that name; give the index, from 0 to {len(labels) - 1}.")
    return found[0]


def _short(label: str) -> str:
    """The first name of a class: ImageNet has several."""
    return label.split(",", maxsplit=1)[0]


def _output_names(paths: list[Path]) -> dict[Path, str]:
    """File names without extension, made unique where two files share one."""
    stems = {path: _shortened(path.stem) for path in paths}
    originals = set(stems.values())
    taken: set[str] = set()
    counts: dict[str, int] = {}  # of each stem so far: the next number to try
    names = {}
    for path, stem in stems.items():
        name, count = stem, counts.get(stem, 1)
        while name in taken or (count > 1 and name in originals and name != stem):
            count += 1
            name = f"{stem}-{count}"
        counts[stem] = count
        taken.add(name)
        names[path] = name
    return names


def _shortened(stem: str) -> str:
    """A name that leaves room for a method and an ending in the 255 bytes that file systems allow."""
    while len(os.fsencode(stem)) > _LONGEST:
        stem = stem[:-1]
    return stem
