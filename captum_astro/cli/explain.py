"""``captum-astro explain``."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.progress import track

from captum_astro.cli._astrocytes import Vita, modulated
from captum_astro.cli._common import (
    Checkpoint,
    Classes,
    Device,
    Ema,
    Limit,
    Model,
    Pretrained,
    examples,
    methods_option,
    named_methods,
    one_of,
    option,
    out_folder,
)
from captum_astro.cli._network import network
from captum_astro.cli._terminal import console
from captum_astro.wording import counted

if TYPE_CHECKING:
    from torch import nn

    from captum_astro.data.view import Fit
    from captum_astro.explaining.result import Results

_LONGEST = 150  # bytes of a name


@examples(
    "explain cat.jpg --model vit_tiny_patch16_224",
    "explain photos/ -n 9 -m VTranM,AttnLRP -t 281 -t lynx",
    "explain cat.jpg -m VTranM:output=logit --crop none -o maps",
    "explain cat.jpg -c finetuned.pt --class-names names.txt",
)
def explain(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files, or folders with images.")],
    model: Model = "vit_base_patch16_224",
    checkpoint: Checkpoint = None,
    pretrained: Pretrained = True,
    ema: Ema = True,
    classes: Classes = None,
    class_names: Annotated[
        Path | None,
        option("The names of the classes: a text file with one a line, or JSON.", "--class-names", metavar="FILE"),
    ] = None,
    method: Annotated[
        list[str] | None,
        methods_option(
            "Methods, or all; repeatable, or with commas; options after colons, as in VTranM:output=logit. "
            "[default: VTranM]"
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        option(
            "A class to explain: its index or name, or top1; repeatable. [default: top1]",
            "--target",
            "-t",
            metavar="CLASS",
        ),
    ] = None,
    limit: Limit = None,
    crop: Annotated[
        str,
        one_of(
            "How an image is fitted to the model. center: as it was evaluated, mostly cropped; squash: the whole "
            "image, whatever its shape; none: the whole image, with borders.",
            "center",
            "squash",
            "none",
        ),
    ] = "center",
    out: Annotated[Path, out_folder("Folder for figures and maps.")] = Path("maps"),
    form: Annotated[str, one_of("The format of the figures.", "png", "pdf", "svg", names=("--format",))] = "png",
    vita: Vita = None,
    device: Device = "cpu",
) -> None:
    """Show what a model looks at: a figure and a raw map of each image.

    The top classes are printed.
    """
    from captum_astro.data.image_error import ImageError
    from captum_astro.data.images import find_images
    from captum_astro.explaining.class_file import read_class_names
    from captum_astro.explaining.given import given
    from captum_astro.explaining.result import Results
    from captum_astro.explaining.session import Session, chosen

    methods = named_methods(method or ["VTranM"])
    chosen(methods, vita is not None)  # before the model is loaded
    paths = find_images(images)[:limit]
    if not any(os.path.exists(path) for path in paths):  # before the model is loaded
        raise _unopened([f"{path}: there is no such file." for path in paths])
    class_list = None if class_names is None else read_class_names(class_names)
    classifier = network(model, checkpoint, pretrained, ema, device, classes)
    if class_list is not None:
        _check_names(class_list, class_names, classifier)
    if checkpoint is None and (random := _random(classifier, pretrained)):
        console.print(f"{random} random: the maps are meaningless.", style="yellow")
    session = Session(
        classifier if vita is None else modulated(classifier, vita), methods, cast("Fit", crop), model, class_list
    )
    names, failures = _output_names(paths), []
    for path in track(
        paths, description="Explaining", console=console, disable=len(paths) < 2 or not console.is_terminal
    ):
        try:
            image = given(path, session.view)
        except ImageError as error:
            failures.append(str(error))
            continue
        results = Results(session.results(image, _targets(target or ["top1"]), "--target"))
        console.print(f"{path.name}: {_said(results)}")
        out.mkdir(parents=True, exist_ok=True)
        _write(results, out / names[path], "" if vita is None else f"_{_in_a_file_name(f'ViTA_{vita}')}", form)
    if len(paths) > len(failures):
        console.print(f"{counted(len(paths) - len(failures), 'image')} explained, in {out}")
    if failures:
        raise _unopened(failures)


def _unopened(failures: list[str]) -> Exception:
    from captum_astro.data.image_error import ImageError

    return ImageError("\n".join([f"{counted(len(failures), 'image')} could not be opened:", *failures]))


def _targets(words: list[str]) -> list[str]:
    """The classes that are named; several indices may be joined with commas, which the names of classes contain."""
    numbers = re.compile(r"\s*\d+\s*(,\s*\d+\s*)+")
    return [part.strip() for word in words for part in (word.split(",") if numbers.fullmatch(word) else [word])]


def _check_names(names: list[str], file: Path | None, model: nn.Module) -> None:
    count = getattr(model, "num_classes", len(names))
    if len(names) != count:
        raise ValueError(
            f"--class-names {file} has {counted(len(names), 'name')}, and {type(model).__name__} has "
            f"{counted(count, 'class', 'es')}: give the names of all its classes, or with --checkpoint the weights "
            f"that belong to the names."
        )


def _random(model: nn.Module, pretrained: bool) -> str:
    """What of a model without a checkpoint is random."""
    if not pretrained:
        return "The weights are"
    published = (getattr(model, "pretrained_cfg", None) or {}).get("num_classes")
    other = published is not None and getattr(model, "num_classes", published) != published
    return "The weights of the head are" if other else ""


def _said(results: Results) -> str:
    """The top classes of an image, and what the model did not see of it."""
    top, crop = ", ".join(map(str, results[0].classes[:3])), results[0].crop
    return f"{top} ({crop}; --crop none shows it all)" if not crop.whole else top


def _write(results: Results, place: Path, vita: str, form: str) -> None:
    """The figure of an image and its maps, each with its record beside it."""
    from captum_astro.storage import write_whole
    from captum_astro.viz.saving import save_record

    several = len({result.target for result in results}) > 1
    for result in results:
        label = f"_class{result.target.index}" if several else ""
        file = place.with_name(f"{place.name}_{_in_a_file_name(result.options['method'])}{vita}{label}.npy")
        write_whole(file, partial(_save_array, result.attributions[0].sum(0).float().cpu().numpy()))
        save_record(file, result.record)
    results.save(place.with_name(f"{place.name}_explained{vita}.{form}"), columns=5)


def _save_array(array: Any, file: Path) -> None:
    import numpy as np

    with file.open("wb") as opened:  # given a name, NumPy would add its own ending
        np.save(opened, array)


def _in_a_file_name(text: str) -> str:
    """A method or ViTA with its options, without the characters that a file name cannot contain."""
    return re.sub(r"[^\w.=+-]", "_", text)


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
