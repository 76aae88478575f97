"""The command ``captum-astro``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

if TYPE_CHECKING:
    from captum_astro.attr.explainers import Explainer

app = typer.Typer(
    help="Explain Vision Transformers from timm.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
train_app = typer.Typer(help="Train the models that ship with the package.", no_args_is_help=True)
app.add_typer(train_app, name="train")
console = Console(highlight=False, soft_wrap=True)

Model = Annotated[str, typer.Option(help="A timm model's name.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A file of weights: safetensors, or PyTorch weights only.")]
Pretrained = Annotated[bool, typer.Option(help="The published weights, unless a checkpoint is given.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]


def main() -> None:
    """Run the command; an expected error is one line, without a traceback."""
    try:
        app()
    except (ValueError, NotImplementedError, OSError, IndexError) as error:
        if os.environ.get("CAPTUM_ASTRO_TRACEBACK"):
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {_escaped(error)}")
        sys.exit(1)


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Model = "vit_base_patch16_224",
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = True,
    method: Annotated[list[str] | None, typer.Option(help="A method, more than once for several, or 'all'.")] = None,
    target: Annotated[str, typer.Option(help="The class to explain: its number or name, or top1.")] = "top1",
    out: Annotated[Path, typer.Option(help="The folder for pictures and maps.")] = Path("maps"),
    device: Device = "cpu",
) -> None:
    """Write a picture and the raw map of each image, and print its top classes."""
    import numpy as np
    import torch

    from captum_astro import viz
    from captum_astro.data.images import ImageError, find_images, open_image
    from captum_astro.models.loading import class_names, load_model, preprocessing

    chosen = _methods(method or ["VTranM"])
    paths = find_images(images)
    network = load_model(model, pretrained=pretrained, checkpoint=checkpoint, device=device)
    if checkpoint is None and not pretrained:
        console.print("[yellow]The weights are random: the maps mean nothing.[/yellow]")
    transform, config = preprocessing(network)
    explainers = {name: explainer.method(network) for name, explainer in chosen.items()}
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
            probabilities = network(x).float().softmax(-1)[0]
        labels = class_names(network, len(probabilities))
        index = _target(target, probabilities, labels)
        top = ", ".join(
            f"{_short(labels[i])} {probabilities[i]:.0%}" for i in probabilities.topk(min(3, len(labels))).indices
        )
        console.print(f"{path.name}: {_escaped(top)}")
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


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="A timm model's name.")],
    checkpoint: Checkpoint = None,
    pretrained: Annotated[bool, typer.Option(help="The published weights; the check needs none.")] = False,
) -> None:
    """Check, in float64, that the layers of a model are captured exactly."""
    import torch

    from captum_astro import check as check_model
    from captum_astro.models.loading import load_model, preprocessing

    network = load_model(model, pretrained=pretrained, checkpoint=checkpoint).double()
    size = preprocessing(network)[1]["input_size"]
    report = check_model(network, torch.randn(1, *size, dtype=torch.float64))
    console.print(_escaped(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def methods() -> None:
    """List the methods."""
    from captum_astro import explainers

    table = Table("method", "family", "gradient", "source", box=None)
    for explainer in explainers():
        table.add_row(explainer.name, explainer.family, "yes" if explainer.needs_gradient else "no", explainer.source)
    console.print(table)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("captum_astro_demo.png"),
    scenes: Annotated[int, typer.Option(help="How many scenes to explain.", min=1)] = 100,
) -> None:
    """Explain scenes of known objects with the model in the package; no network, no file."""
    from captum_astro.evaluation.demo import run_demo

    console.print(_escaped(run_demo(out, scenes)))


@train_app.command("scenes")
def train_scenes(
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")] = Path("scenes_vit.safetensors"),
    steps: Annotated[int, typer.Option(help="Optimiser steps of 64 scenes.")] = 4500,
    seed: Annotated[int, typer.Option(help="Of weights and scenes.")] = 0,
) -> None:
    """Train the bundled model from nothing: about an hour on two cores, 2 GB of memory."""
    from captum_astro.models.training import train_on_scenes

    console.print(_escaped(train_on_scenes(out, steps, seed)))


def _methods(wanted: list[str]) -> dict[str, Explainer]:
    from captum_astro import explainers

    known = {explainer.name.lower(): explainer for explainer in explainers()}
    if [name.lower() for name in wanted] == ["all"]:
        return {explainer.name: explainer for explainer in known.values()}
    unknown = [name for name in wanted if name.lower() not in known]
    if unknown:
        raise ValueError(
            f"There is no method {unknown[0]!r}. Methods: {', '.join(e.name for e in known.values())}, or 'all'."
        )
    return {known[name.lower()].name: known[name.lower()] for name in wanted}


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
        raise ValueError(f"--target {target!r}: {len(found)} classes have that name; give the number.")
    return found[0]


def _short(label: str) -> str:
    """The first of a class's names: ImageNet gives several."""
    return label.split(",", maxsplit=1)[0]


def _output_names(paths: list[Path]) -> dict[Path, str]:
    """File names without their ending, made different where two files share one."""
    taken: set[str] = set()
    names = {}
    for path in paths:
        others = {other.stem for other in paths if other != path}
        name, count = path.stem, 1
        while name in taken or (count > 1 and name in others):
            count += 1
            name = f"{path.stem}-{count}"
        taken.add(name)
        names[path] = name
    return names


def _escaped(text: object) -> str:
    from rich.markup import escape

    return escape(str(text))


if __name__ == "__main__":
    main()
