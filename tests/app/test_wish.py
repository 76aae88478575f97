from __future__ import annotations

from dataclasses import replace

import pytest

from captum_astro.app.settings import Settings
from captum_astro.app.wish import ModelWish, model_wish, wanted_class
from captum_astro.models.bundled import PIT, PLAIN
from tests.app.making import WISH


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


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ((" test_vit ", "", "a cat"), ModelWish("test_vit")),
        (("test_vit", "mine.pt", None), ModelWish("test_vit", "mine.pt")),
        (("open_clip:A:b", None, " a cat\n\na dog \na cat"), ModelWish("open_clip:A:b", None, ("a cat", "a dog"))),
        (("open_clip:A", "mine.pt", f"a\n{'b' * 500}"), ModelWish("open_clip:A", "mine.pt", ("a", "b" * 500))),
    ],
)
def test_models_that_are_wished_for(fields: tuple[str, str | None, str | None], wish: ModelWish) -> None:
    assert model_wish(*fields, Settings(models=(wish.name,))) == wish
    assert wish.reads_text == (wish.prompts != ())


@pytest.mark.parametrize(
    ("field", "found"),
    [(" tabby ", "tabby"), ("281", "281"), (281, 281), (0, 0), ("", None), (" ", None), (None, None)],
)
def test_classes_as_the_page_has_them(field: str | int | None, found: str | int | None) -> None:
    assert wanted_class(field) == found


def test_the_classes_to_explain() -> None:
    assert WISH.targets == [3]
    assert replace(WISH, target=None, against=0).targets == [None, 0]
