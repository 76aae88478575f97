from __future__ import annotations

from pathlib import Path

from captum_astro.app.errors import said
from captum_astro.app.settings import Settings


def test_errors_are_text_without_the_folder_of_the_server(tmp_path: Path) -> None:
    text = said(ValueError(f"{tmp_path}/<b>w</b>.pt: no"), Settings(tmp_path))
    assert text == "&lt;b&gt;w&lt;/b&gt;.pt: no"
    text = said(
        ValueError("Give a file with checkpoint=FILE, or ask for random weights with pretrained=False."), Settings()
    )
    assert text == "Choose a bundled model, or start the app with a folder that holds a weights file."
    assert said(KeyError(), Settings()) == "KeyError"
