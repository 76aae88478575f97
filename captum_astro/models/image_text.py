"""Loading image-text models of open_clip by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from captum_astro.extras import needed
from captum_astro.models.errors import ModelError
from captum_astro.wording import reason

_PREFIX = "open_clip:"


def reads_text(name: str) -> bool:
    """Whether a name is that of an image-text model.

    Example:
        >>> reads_text("open_clip:ViT-B-32:laion2b_s34b_b79k"), reads_text("vit_base_patch32_224")
        (True, False)
    """
    return name.startswith(_PREFIX)


def model_and_weights(name: str) -> tuple[str, str]:
    """What open_clip calls a model and its weights; the latter is empty if none are named.

    Args:
        name: As for `load_image_text`.

    Example:
        >>> model_and_weights("open_clip:ViT-B-32:laion2b_s34b_b79k")
        ('ViT-B-32', 'laion2b_s34b_b79k')
    """
    model, _, weights = name.removeprefix(_PREFIX).partition(":")
    return model, weights


def load_image_text(name: str, checkpoint: Path | str | None = None) -> tuple[nn.Module, Callable[..., Any]]:
    """An image-text model and its tokenizer, for `captum_astro.text_target`.

    Args:
        name: ``open_clip:MODEL:WEIGHTS``, such as ``open_clip:ViT-B-32:laion2b_s34b_b79k``; ``open_clip:MODEL`` with a
            checkpoint.
        checkpoint: A weights file to load instead of published weights.

    Returns:
        The model in eval mode, and its tokenizer.

    Raises:
        MissingExtraError: If open_clip is not installed.
        ModelError: If there is no such model, or its weights cannot be loaded.
    """
    open_clip = needed(name, "open_clip")
    model, weights = model_and_weights(name)
    known = open_clip.list_models()
    if model not in known:
        near = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
        raise ModelError(f"open_clip has no model {model!r}." + (f" Did you mean {', '.join(near)}?" if near else ""))
    published = open_clip.list_pretrained_tags_by_model(model)
    if checkpoint is None and not published:
        raise ModelError(f"{name}: no weights of it are published; give checkpoint=FILE.")
    if checkpoint is None and weights not in published:
        raise ModelError(f"{name}: name its weights, as in {_PREFIX}{model}:{published[0]}; of {', '.join(published)}.")
    try:
        loaded = open_clip.create_model(model, pretrained=weights if checkpoint is None else str(checkpoint))
        return loaded.eval(), open_clip.get_tokenizer(model)
    except Exception as error:  # downloading, reading and fitting fail in many ways
        raise ModelError(f"{name} could not be loaded: {reason(error)}.") from error
