"""Weights fitted to a model: the names and shapes of all of them must agree, perhaps after a known conversion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from captum_astro.models.checkpoint import Tensors
from captum_astro.models.containers import chosen
from captum_astro.models.conversion import conversions
from captum_astro.models.errors import ModelError
from captum_astro.models.forms import Form, Target, forms


def fit(model: nn.Module, name: str, file: Path, tensors: Tensors, use_ema: bool, say: Callable[[str], None]) -> None:
    """Load all weights of a model, or none.

    The names may have a common prefix, be Hugging Face's, or be any that timm converts for this model. What is under
    other prefixes belongs to other models, and is left out.

    Args:
        model: The model; its weights are replaced.
        name: Its timm name.
        file: Where the tensors were read, for messages.
        tensors: The weights.
        use_ema: Whether averaged weights are preferred, if two prefixes fit.
        say: Receives what was chosen, resampled or left out, a sentence each.

    Raises:
        ModelError: If a weight is missing, not expected, or of another shape.
    """
    target = Target(model)
    found = forms(tensors, target)
    fits = [form for form in found if target.accepts(form)] or _converted(model, name, found, target)
    if not fits:
        differences = target.differences(max(found, key=target.matches))
        raise ModelError(
            f"{file} does not match {name}: {differences}. Give the name of the model that these weights are of, or "
            f"weights of {name}."
        )
    prefix = chosen(file, list(dict.fromkeys(form.prefix for form in fits)), use_ema, say)
    form = next(form for form in fits if form.prefix == prefix)
    left_out = [key for key in form.left_out if not any(other.holds(key) for other in fits)]
    _report(file, form, left_out, say)
    model.load_state_dict({key: value for key, value in form.tensors.items() if key in target.own}, strict=False)


def _converted(model: nn.Module, name: str, found: list[Form], target: Target) -> list[Form]:
    """The forms that fit once timm has converted them; timm knows some prefixes itself, so those without come first."""
    for convert in conversions(model, name):
        for bare in (True, False):
            some = [form.replaced(convert(form.tensors)) for form in found if bool(form.prefix) != bare]
            fits = [form for form in some if target.accepts(form) and not form.patches_differ()]
            if fits:
                return fits
    return []


def _report(file: Path, form: Form, left_out: list[str], say: Callable[[str], None]) -> None:
    resampled = form.resampled()
    if resampled:
        key, *others = resampled
        before, now = tuple(form.original[key].shape), tuple(form.tensors[key].shape)
        say(f"{file}: {key} was resampled from {before} to {now}, as timm does{_and_more(others)}.")
    if left_out:
        key, *others = left_out
        say(f"{file}: {key} is no part of the model, and was left out{_and_more(others)}.")


def _and_more(others: list[str]) -> str:
    return f"; the same holds for {len(others)} more" if others else ""
