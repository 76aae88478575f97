"""The one call: a model, an image, a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from PIL import Image
from torch import nn

from captum_astro.data.view import Fit
from captum_astro.explaining.classes import Wanted
from captum_astro.explaining.given import given, several
from captum_astro.explaining.result import Result, Results
from captum_astro.explaining.session import Session
from captum_astro.models.loading import load_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LISTS = (list, tuple, range)
_One = str | os.PathLike[str] | Image.Image  # a tensor may be one image or several
_Several = list[Any] | tuple[Any, ...]
_Methods = list[str] | tuple[str, ...]
_Targets = _Several | range


class _Options(TypedDict, total=False):
    crop: Fit
    bands: Sequence[int] | None
    names: Sequence[str] | None


@overload
def explain(
    model: nn.Module | str,
    images: Any,
    method: Literal["all"],
    target: Wanted | Sequence[Wanted] = None,
    **options: Unpack[_Options],
) -> Results: ...
@overload
def explain(
    model: nn.Module | str, images: _One, method: str = ..., target: Wanted = ..., **options: Unpack[_Options]
) -> Result: ...
@overload
def explain(
    model: nn.Module | str,
    images: _Several,
    method: str | Sequence[str] = ...,
    target: Wanted | Sequence[Wanted] = ...,
    **options: Unpack[_Options],
) -> Results: ...
@overload
def explain(
    model: nn.Module | str,
    images: Any,
    method: _Methods,
    target: Wanted | Sequence[Wanted] = ...,
    **options: Unpack[_Options],
) -> Results: ...
@overload
def explain(
    model: nn.Module | str, images: Any, method: str, target: _Targets, **options: Unpack[_Options]
) -> Results: ...
@overload
def explain(model: nn.Module | str, images: Any, *, target: _Targets, **options: Unpack[_Options]) -> Results: ...
@overload
def explain(
    model: nn.Module | str,
    images: Any,
    method: str | Sequence[str] = ...,
    target: Wanted | Sequence[Wanted] = ...,
    **options: Unpack[_Options],
) -> Result | Results: ...


def explain(
    model: nn.Module | str,
    images: Any,
    method: str | Sequence[str] = "VTranM",
    target: Wanted | Sequence[Wanted] = None,
    *,
    crop: Fit = "center",
    bands: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> Result | Results:
    """Explain an image: its map, its top classes, and a picture.

    A list of images, methods or targets explains every image for every target with every method.

    Args:
        model: A timm model, a wrapper around one, a `captum_astro.ViTA`, or the name of a model whose published weights
            timm loads.
        images: An image or a list of them: a file, a PIL image, a tensor of bytes ``(3, H, W)``, or the model's own
            input, preprocessed, as floats ``(C, H, W)``. ``(B, C, H, W)`` are several.
        method: A method's name, with options after colons as in ``"VTranM:output=logit"``; ``"all"``; or a list.
        target: The index of a class or one of its names; by default the most probable class. Or a list.
        crop: How an image is fitted to the model: ``"center"`` as the model was evaluated, mostly cropped at the
            centre; ``"squash"``: the whole image, whatever its shape; ``"none"``: the whole image, with borders.
        bands: The channels of the model's input that are shown as red, green and blue, or the one shown in grey. By
            default the mean is shown, unless there are one or three.
        names: The names of the classes; by default those of the model or of ImageNet, otherwise the indices.

    Returns:
        A `Result`, which a notebook shows; `Results`, a sequence of them, if any of the three is a list or a batch, or
        the method is ``"all"``.

    Raises:
        ImageError: If a file is not an image.
        ModelError: If there is no model of this name, or its weights cannot be loaded.
        TypeError: If an image is none of the above.
        ValueError: If there is no such method, option or class. The message names near ones.
        UnsupportedModelError: If a method cannot explain the model.

    Example:
        >>> import timm
        >>> from PIL import Image
        >>> model = timm.create_model("scenes_vit_tiny_patch4_64", pretrained=True).eval()
        >>> r = explain(model, Image.new("RGB", (90, 60), "navy"), target=3)
        >>> r
        <VTranM: 3 ... (class 3); 16 x 16 patches; image, 90 x 60; center crop: the model sees 67% of the image>
        >>> [len(explain(model, r.image, ["VTranM", "AttnLRP"], [3, 8])), r.grid.shape, len(r.classes)]
        [4, torch.Size([16, 16]), 5]
    """
    shown, methods, targets = several(images), _listed(method, "methods"), _listed(target, "targets")
    name = model if isinstance(model, str) else None
    session = Session(load_model(model) if isinstance(model, str) else model, methods, crop, name, names)
    results = [
        result
        for image in ([images] if shown is None else shown)
        for result in session.results(given(image, session.view, bands), targets)
    ]
    single = shown is None and not any(isinstance(value, _LISTS) for value in (method, target))
    return results[0] if single and len(results) == 1 else Results(results)


def _listed(values: Any, what: str) -> list[Any]:
    """The values of a list, or a single one."""
    if not isinstance(values, _LISTS):
        return [values]
    if not values:
        raise ValueError(f"The list of {what} is empty.")
    return list(values)
