"""``captum-astro check``: what works with a model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from captum_astro.cli._common import Checkpoint, Classes, Ema, examples, methods_option, named_methods, out_file
from captum_astro.cli._network import network
from captum_astro.cli._terminal import console


@examples(
    "check vit_base_patch16_224",
    "check resnet50 -m TokenGradCAM,AttnLRP -o report.json",
    "check vit_tiny_patch16_224 --checkpoint finetuned.pt -m none",
)
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The name of a timm model.")],
    checkpoint: Checkpoint = None,
    pretrained: Annotated[bool, typer.Option(help="Load the published weights; the check does not need them.")] = False,
    ema: Ema = True,
    classes: Classes = None,
    method: Annotated[
        list[str] | None,
        methods_option("Methods to run; repeatable, or with commas; or none, for the layers alone. [default: all]"),
    ] = None,
    out: Annotated[Path | None, out_file("A JSON file to write the report to.")] = None,
) -> None:
    """Check what works with a model.

    Whether its layers are recorded exactly, and what each method gives and costs on it.
    """
    import torch

    from captum_astro import UnsupportedModelError, check_methods
    from captum_astro import check as check_layers
    from captum_astro.attr.explainers import explainers_named
    from captum_astro.models.loading import preprocessing
    from captum_astro.storage import write_whole

    methods = named_methods(method or ["all"])
    if methods != ["none"]:
        explainers_named(methods)  # before the model is made
    checked = network(model, checkpoint, pretrained, ema, classes=classes)
    images = torch.randn(1, *preprocessing(checked)[1]["input_size"])
    found: dict[str, Any] = {"layers": None, "refused": None, "methods": None}
    passed = True
    try:
        layers = check_layers(checked.double(), images.double())
        console.print(str(layers))
        found["layers"], passed = asdict(layers), layers.ok
    except UnsupportedModelError as error:
        if methods == ["none"]:
            raise
        found["refused"] = str(error)
    if methods != ["none"]:
        report = check_methods(checked.float(), images, methods)
        console.print(("" if found["layers"] is None else "\n") + str(report))
        found["methods"], passed = asdict(report), passed and report.ok
    if out is not None:
        write_whole(out, lambda part: part.write_text(json.dumps(found, indent=1) + "\n"))
    if not passed:
        raise typer.Exit(1)
