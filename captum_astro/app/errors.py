"""Errors as a visitor reads them."""

from __future__ import annotations

from html import escape

from captum_astro.app.settings import Settings

_ON_THE_PAGE = {  # what other interfaces call it, and what a visitor can do
    "Give a file with checkpoint=FILE, or ask for random weights with pretrained=False.": (
        "Choose a bundled model, or start the app with a folder that holds a weights file."
    ),
    "checkpoint=FILE": "a weights file",
}


def said(error: BaseException, settings: Settings) -> str:
    """An error's message, as text that is safe in HTML and does not say where the app's folder is."""
    text = str(error) or type(error).__name__
    if settings.folder is not None:
        text = text.replace(f"{settings.folder.resolve()}/", "").replace(f"{settings.folder}/", "")
    for words, instead in _ON_THE_PAGE.items():
        text = text.replace(words, instead)
    return escape(text)
