"""What each method gives on a model: exact, approximate by a stated rule, refused with a reason, or wrong."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from captum_astro.attr._base import Explanation, TokenAttribution
from captum_astro.attr._propagation import PropagationAttribution
from captum_astro.attr.explainers import Explainer
from captum_astro.layouts.base import layout_for
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.wording import reason

Status = Literal["exact", "approximate", "refused", "failed"]

# What a right map stays far below, of the explained output. Relevance is conserved but for what rules drop: of 834
# maps, the largest sum is 7.3. The other maps are made of attention, whose rows sum to 1, and of products of features
# and gradients, which sum to the output in a homogeneous model.
_SUM = 100
_VALUE = 1_000_000  # of a pixel


@dataclass(frozen=True)
class Outcome:
    """What one method gives on one model.

    Attributes:
        method: The method's name.
        status: ``"exact"``; ``"approximate"``: a part is carried by a stated rule; ``"refused"``: an
            `UnsupportedModelError`; ``"failed"``: any other error, or a map that is none.
        reason: The rule, the error or what is wrong with the map; empty if exact.
        conserved: The sum of the relevance of all pixels, relative to the explained output; None for methods that
            propagate none.
        cost: The time of a call, relative to a forward and a backward pass; None if it was not measured.
    """

    method: str
    status: Status
    reason: str = ""
    conserved: float | None = None
    cost: float | None = None


def outcomes(model: nn.Module, images: torch.Tensor, methods: Iterable[Explainer]) -> list[Outcome]:
    """Run methods on the largest output of each image.

    Args:
        model: The model, in eval mode.
        images: ``(B, C, H, W)``.
        methods: The methods to run.

    Returns:
        One outcome a method. A method that raises anything is reported as refused or failed.

    Example:
        >>> import timm
        >>> from captum_astro.attr.explainers import explainers_named
        >>> model, methods = timm.create_model("resnet10t").eval(), explainers_named(["VTranM", "TokenGradCAM"])
        >>> [outcome.status for outcome in outcomes(model, torch.rand(1, 3, 64, 64), methods.values())]
        ['refused', 'exact']
    """
    with torch.no_grad():
        output = model(images)
    return [_outcome(explainer, model, images, output) for explainer in methods]


def largest(output: torch.Tensor) -> list[int] | list[tuple[int, ...]] | None:
    """The target of each image's largest output, ``(B, classes)`` or ``(B, ..., features)``; None for one number."""
    if output.ndim <= 2:
        return output.argmax(1).tolist() if output.ndim == 2 else None
    places = output.flatten(1).argmax(1)
    return [tuple(int(i) for i in torch.unravel_index(place, output.shape[1:])) for place in places]


def attribution(method: type[Explanation], model: nn.Module, images: torch.Tensor, target: Any) -> torch.Tensor:
    """A method's map with its negative values, ``(B, C, H, W)``.

    Args:
        method: Its class.
        model: The model, in eval mode.
        images: ``(B, C, H, W)``.
        target: What to explain, as Captum has it.
    """
    signed = "relu_attributions" in inspect.signature(method.attribute).parameters
    options: dict[str, Any] = {"relu_attributions": False} if signed else {}
    found: torch.Tensor = method(model).attribute(images, target=target, **options)
    return found


def _outcome(explainer: Explainer, model: nn.Module, images: torch.Tensor, output: torch.Tensor) -> Outcome:
    name, method = explainer.name, explainer.method
    target = largest(output)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is approximate, which the outcome says
            found = attribution(method, model, images, target)
            conserved = _conserved(method, model, images, target)
    except UnsupportedModelError as error:
        return Outcome(name, "refused", reason(error))
    except Exception as error:  # whatever a method or a model raises is what this reports
        return Outcome(name, "failed", f"{type(error).__name__}: {reason(error)}")
    if (wrong := _wrong(found, images) or _too_large(found, output, conserved)) is not None:
        return Outcome(name, "failed", wrong)
    rules = layout_for(model).approximate if issubclass(method, TokenAttribution) else ()
    return Outcome(name, "approximate" if rules else "exact", "; ".join(rules), conserved)


def _conserved(method: type[Explanation], model: nn.Module, images: torch.Tensor, target: Any) -> float | None:
    """The part of the first image's output that arrives at its pixels."""
    if not issubclass(method, PropagationAttribution):
        return None
    return method(model).conservation(images[:1], None if target is None else target[:1]).pixels


def _wrong(found: torch.Tensor, images: torch.Tensor) -> str | None:
    """Why something is no map of the images; None if it is one."""
    if found.shape != images.shape:
        return f"The map has the shape {tuple(found.shape)}, the images {tuple(images.shape)}."
    if not found.isfinite().all():
        return "The map is not finite."
    if not found.flatten(1).any(1).all():
        return "The map is zero everywhere."
    return None


def _too_large(found: torch.Tensor, output: torch.Tensor, conserved: float | None) -> str | None:
    """By how much a map exceeds what a right one can be; None if it does not."""
    if conserved is not None and abs(conserved) > _SUM:
        return f"The map sums to {conserved:.3g} times the explained output; a right one stays below {_SUM} times."
    value = float(found.double().abs().amax() / output.abs().amax().clamp_min(1))
    if value > _VALUE:
        return f"A pixel has {value:.3g} times the output; in a right map it stays below {_VALUE} times."
    return None
