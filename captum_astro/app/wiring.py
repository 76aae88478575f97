"""Which function each field of the page calls, and what its result changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_astro.app.errors import said
from captum_astro.app.handlers import Choice, Handlers
from captum_astro.models.image_text import reads_text
from captum_astro.wording import EXPECTED

_SAVE = Path(__file__).parent / "save.js"
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# one at a time, so that the memory of one explanation is enough
_WORK: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
# beside it: whoever reads the verdict does not keep others from their maps
_CHECK: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "check", "concurrency_limit": 1}


@dataclass(frozen=True)
class Fields:
    """The fields of the page that make a wish, in the order in which `Handlers.wish` reads them."""

    image: Any
    crop: Any
    model: Any
    checkpoint: Any
    prompts: Any
    methods: list[Any]
    target: Any
    against: Any
    astrocytes: Any
    vita: list[Any]

    @property
    def all(self) -> list[Any]:
        """All of them."""
        model = [self.image, self.crop, self.model, self.checkpoint, self.prompts]
        return [*model, *self.methods, self.target, self.against, self.astrocytes, *self.vita]


@dataclass(frozen=True)
class Shown:
    """What the page shows."""

    maps: Any
    verdict: Any
    curves: Any
    python: Any
    command: Any


@dataclass(frozen=True)
class Buttons:
    """What can be pressed."""

    drop: Any
    scene: Any
    explain: Any
    curves: Any
    downloads: dict[str, Any]


def connect(handlers: Handlers, visit: Any, fields: Fields, shown: Shown, buttons: Buttons) -> None:
    """Connect the parts of the page, inside its ``gr.Blocks``.

    Args:
        handlers: The functions.
        visit: The state of a visitor.
        fields: What makes a wish.
        shown: What is shown of it.
        buttons: What starts something.
    """
    import gradio as gr

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with lists as Gradio changes them, and expected errors as messages on the page."""

        @functools.wraps(function)
        def called(*values: Any) -> Any:
            try:
                found = function(*values)
            except EXPECTED as error:
                raise gr.Error(said(error, handlers.settings), duration=None, print_exception=False) from error
            return tuple(map(_changed, found)) if isinstance(found, tuple) else found

        return called

    def received(visit: Any, files: Any) -> Any:
        """The drop zone is empty again, also after an error, so that the next image can be dropped."""
        try:
            visit, images = handlers.receive(visit, files)
        except EXPECTED as error:
            gr.Warning(said(error, handlers.settings), duration=None, title="Not taken")
            return gr.skip(), None, gr.skip()
        return visit, None, _changed(images)

    def clicked(visit: Any, event: gr.EventData) -> Any:
        return told(handlers.token)(visit, int(event.row), int(event.column))

    clicked.__annotations__["event"] = gr.EventData  # by which Gradio knows what to pass

    asked, images = [visit, *fields.all], [visit, fields.image]
    buttons.drop.upload(received, [visit, buttons.drop], [visit, buttons.drop, fields.image], **_QUIET)
    buttons.scene.click(told(handlers.scene), visit, images, **_QUIET)
    fields.model.change(lambda name: gr.update(visible=reads_text(str(name))), fields.model, fields.prompts, **_QUIET)
    changes = [part.change for part in (fields.image, fields.model, fields.checkpoint, fields.crop)]
    sights = [shown.maps, fields.target, fields.against]
    looked = gr.on([*changes, fields.prompts.blur], told(handlers.look), asked, sights, **_WORK)
    maps = [visit, shown.maps, shown.python, shown.command, shown.curves]
    for starts in (looked.success, buttons.explain.click):
        explained = starts(told(handlers.explain), asked, maps, **_WORK)
        explained.success(told(handlers.verdict), fields.all, shown.verdict, **_CHECK)
    shown.maps.select(clicked, visit, shown.maps, **_WORK)
    buttons.curves.click(told(handlers.curves), visit, shown.curves, **_WORK)
    file = gr.JSON(visible="hidden")
    for kind, button in buttons.downloads.items():
        made = button.click(told(handlers.download(kind)), visit, file, **_WORK)
        made.success(None, file, None, js=_SAVE.read_text(), **_QUIET)


def _changed(value: Any) -> Any:
    import gradio as gr

    return gr.update(choices=value.choices, value=value.value) if isinstance(value, Choice) else value
