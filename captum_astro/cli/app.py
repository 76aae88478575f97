"""``captum-astro app``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_astro.cli._common import examples, option, whole_number


@examples(
    "app",
    "app --folder holiday",
    "app -M deit_tiny_patch16_224 -M resnet50 --port 8000",
)
def app(
    folder: Annotated[
        Path | None, typer.Option(help="A folder whose images and weights files can be chosen on the page.")
    ] = None,
    model: Annotated[
        list[str] | None,
        option("A model that can be chosen; repeatable. By default any can.", "--model", "-M", metavar="NAME"),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to answer on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    port: Annotated[int | None, whole_number("The port; by default the first free one from 7860.", most=65535)] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Explain images on a page in the browser of this machine."""
    from captum_astro.app import launch

    launch(folder, model or (), host=host, port=port, open_browser=browser)
