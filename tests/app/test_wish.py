from __future__ import annotations

import pytest

from captum_astro.app.settings import Settings
from captum_astro.app.wish import model_wish
from captum_astro.models.bundled import PIT, PLAIN


@pytest.mark.parametrize(
    ("fields", "settings", "message"),
    [
        (("", "", ""), Settings(), "No model is named"),
        (
            ("test_vit", "", ""),
            Settings(models=(PLAIN, PIT)),
            f"test_vit is not offered here. Choose one of {PLAIN}, {PIT}",
        ),
        (
            ("open_clip:ViT-B-32:x", "", "a cat\n\n a cat "),
            Settings(),
            "from 2 to 50, each on a line .* there is 1 text",
        ),
        (("open_clip:ViT-B-32:x", "", "a\nb\nc"), Settings(prompts=2), "from 2 to 2, .* there are 3 texts"),
        (("open_clip:ViT-B-32:x", "", f"a\n{'b' * 501}"), Settings(), "500 characters at most"),
    ],
)
def test_models_that_are_refused(fields: tuple[str, str, str], settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_wish(*fields, settings)
