"""A wish as the Python code or the command that gives the same maps."""

from __future__ import annotations

import shlex
from typing import Any

from captum_astro.app.wish import Wish
from captum_astro.explaining.classes import Class
from captum_astro.models.image_text import model_and_weights


def python_of(wish: Wish, targets: list[Class]) -> str:
    """Python code that draws and saves the maps of a wish.

    Args:
        wish: The wish.
        targets: The classes that it explained.
    """
    imports, model = _model(wish)
    names = ", names=prompts" if wish.model.reads_text else ""
    crop = "" if wish.crop == "center" else f", crop={wish.crop!r}"
    methods, indices = _listed([repr(one) for one in wish.methods]), _listed([str(one.index) for one in targets])
    said = ", ".join(repr(one.short) for one in targets)
    lines = [
        *imports,
        "",
        *model,
        f"results = explain(model, {wish.image!r}, {methods}, {indices}{crop}{names})  # {said}",
        'results.save("maps.png")',
    ]
    return "\n".join(lines)


def command_of(wish: Wish, targets: list[Class]) -> str:
    """The command that writes the maps of a wish, or why there is none.

    Args:
        wish: The wish.
        targets: The classes that it explained.
    """
    if wish.model.reads_text:
        return "# texts are a matter for Python: see the code"
    image = f"./{wish.image}" if wish.image.startswith("-") else wish.image
    words = ["captum-astro", "explain", image, "--model", wish.model.name]
    words += [] if wish.model.checkpoint is None else ["--checkpoint", wish.model.checkpoint]
    words += [word for method in wish.methods for word in ("--method", method)]
    words += [word for target in targets for word in ("--target", str(target.index))]
    words += [] if wish.crop == "center" else ["--crop", wish.crop]
    words += [] if wish.vita is None else ["--vita", ",".join(_settings(wish.vita))]
    return shlex.join(words)


def _model(wish: Wish) -> tuple[list[str], list[str]]:
    """The imports, and the lines that make the model."""
    ours = ["explain"] if wish.vita is None else ["ViTA", "explain"]
    if wish.model.reads_text:
        name, weights = model_and_weights(wish.model.name)
        imports = ["import open_clip", f"from captum_astro import {', '.join([*ours, 'text_target'])}"]
        made = f"open_clip.create_model({name!r}, pretrained={wish.model.checkpoint or weights!r}).eval()"
        lines = [
            f"prompts = {_listed([repr(one) for one in wish.model.prompts])}",
            f"clip, tokenizer = {made}, open_clip.get_tokenizer({name!r})",
            "model = text_target(clip, tokenizer, prompts)",
        ]
    else:
        imports = [f"from captum_astro import {', '.join(ours)}"]
        imports += ["from captum_astro.models.loading import load_model"]
        weights = "" if wish.model.checkpoint is None else f", checkpoint={wish.model.checkpoint!r}"
        lines = [f"model = load_model({wish.model.name!r}{weights})"]
    if wish.vita is not None:
        lines += [f"model = ViTA(model, {', '.join(_settings(wish.vita))})"]
    return imports, lines


def _settings(vita: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in vita.items()]


def _listed(words: list[str]) -> str:
    return f"[{', '.join(words)}]"
