"""Loading timm models by name, with errors that suggest a fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from PIL import Image
from torch import nn

from captum_astro.caller import warn
from captum_astro.models.checkpoint import Tensors, check_stored, read
from captum_astro.models.containers import weights_in
from captum_astro.models.data_config import data_config
from captum_astro.models.errors import ModelError
from captum_astro.models.fitting import fit

_SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge"}


def load_model(
    name: str,
    *,
    pretrained: bool = True,
    checkpoint: Path | str | None = None,
    device: str = "cpu",
    num_classes: int | None = None,
    use_ema: bool = True,
    say: Callable[[str], None] = warn,
) -> nn.Module:
    """Create a timm model in eval mode.

    A checkpoint is safetensors, or what ``torch.save`` wrote, and only its tensors are read. The weights may be inside
    a training checkpoint, their names may have a prefix, be Hugging Face's (of ViT, DeiT and DINOv2), or be any that
    timm converts for the model, and positions may be of another image size. All weights are loaded, or none.

    Args:
        name: A name that timm knows, with or without a tag, including this package's models.
        pretrained: Load the published weights, which timm downloads or has in its cache.
        checkpoint: A weights file to load instead.
        device: The device to move it to.
        num_classes: Number of classes; by default that of the checkpoint, otherwise the published model's.
        use_ema: If a checkpoint has both raw and averaged weights (EMA, or a teacher's), load the averaged ones.
        say: Receives what was chosen, resampled or left out in a checkpoint, a sentence each; by default a warning.

    Raises:
        ModelError: If there is no such model, its weights cannot be downloaded, or the file does not match it.

    Example:
        >>> import tempfile
        >>> model = load_model("test_vit", pretrained=False, num_classes=7)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"epoch": 9, "state_dict": model.state_dict()}, Path(folder, "last.ckpt"))
        ...     again = load_model("test_vit", checkpoint=Path(folder, "last.ckpt"))
        >>> again.num_classes, torch.equal(again.head.weight, model.head.weight)
        (7, True)
    """
    _check_name(name)
    if checkpoint is None:
        model = _created(name, pretrained, num_classes)
    else:
        file = Path(checkpoint)
        tensors = weights_in(file, read(file), use_ema, say)
        check_stored(file, tensors)
        model = _created(name, False, _classes(name, file, tensors, num_classes))
        fit(model, name, file, tensors, use_ema, say)
    try:
        return model.eval().to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"The model cannot be put on {device!r}: {_first_line(error)}") from error


def preprocessing(model: nn.Module) -> tuple[Callable[[Image.Image], torch.Tensor], dict[str, Any]]:
    """The model's own evaluation transform, from an RGB image to ``(3, H, W)``, and its settings (mean, std, ...).

    ``H`` and ``W`` are the size that the model's patch embedding was built for, also if it is not the published one. A
    model that does not keep its size, such as LeViT, has the published one.
    """
    config = data_config(model)
    return timm.data.create_transform(**config, is_training=False), config


def class_names(model: nn.Module, count: int) -> list[str]:
    """A name for each class: the model's own, ImageNet's for an ImageNet-1k model, otherwise the index.

    Args:
        model: A timm model.
        count: The number of its outputs.
    """
    config = getattr(model, "pretrained_cfg", {}) or {}
    if config.get("label_names") and len(config["label_names"]) == count:
        return [str(name) for name in config["label_names"]]
    if config.get("num_classes") == count == 1000:
        info = timm.data.ImageNetInfo()
        return [info.index_to_description(index) for index in range(count)]
    return [str(index) for index in range(count)]


def _check_name(name: str) -> None:
    if ":" in name:  # not in timm's own list, such as hf-hub:timm/NAME
        return
    known = timm.list_models()
    plain, _, tag = name.partition(".")
    if plain not in known:
        near = _near(name, known)
        raise ModelError(f"timm has no model {name!r}." + (f" Did you mean {', '.join(near)}?" if near else ""))
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ModelError(f"timm has no weights {tag!r} of {plain}: give {plain} alone, or another tag.") from error


def _near(name: str, known: Sequence[str]) -> list[str]:
    """The models that a name may mean: another spelling (ViT-B/16), the beginning of theirs, or a similar one."""
    plain = re.sub(r"\W+", "_", name.lower())
    plain = re.sub(r"_([tsblh])_?(\d*)(?=_|$)", lambda m: f"_{_SIZES[m[1]]}_patch{m[2]}", plain)
    near = [model for model in sorted(known, key=len) if model.startswith(plain.rstrip("0123456789_"))]
    exact = [model for model in near if model.startswith(plain)]
    return (exact or near)[:3] or difflib.get_close_matches(plain, known, n=3, cutoff=0.5)


def _classes(name: str, file: Path, tensors: Tensors, asked: int | None) -> int | None:
    """The number of classes to create the model with: what was asked for, which the file must have, or the file's."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    classifiers = getattr(config, "classifier", None) or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    for classifier in (*classifiers, "head", "classifier"):
        found = {
            len(value)
            for key, value in tensors.items()
            if f".{key}".endswith(f".{classifier}.weight") and value.ndim >= 2
        }
        if len(found) == 1:
            (classes,) = found
            if asked not in (None, classes):
                raise ModelError(
                    f"{file} has a head of {classes} classes, not {asked}: give num_classes={classes}, or weights with "
                    f"{asked} classes."
                )
            return classes
    return asked


def _created(name: str, pretrained: bool, num_classes: int | None) -> nn.Module:
    try:
        classes = {} if num_classes is None else {"num_classes": num_classes}
        return cast(nn.Module, timm.create_model(name, pretrained=pretrained, **classes))
    except Exception as error:
        if not pretrained:
            raise ModelError(f"{name} could not be created: {_first_line(error)}") from error
        raise ModelError(
            f"The published weights of {name} could not be downloaded ({_first_line(error)}). Give a file with "
            f"checkpoint=FILE, or ask for random weights with pretrained=False."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
