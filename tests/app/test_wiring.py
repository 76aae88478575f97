"""Which function each field of the page calls: seen in Gradio's own list, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captum_astro.app.files import KINDS
from captum_astro.app.handlers import Handlers
from captum_astro.app.settings import Settings
from captum_astro.app.visit import Visit
from captum_astro.app.wiring import Fields

gr = pytest.importorskip("gradio", reason="the extra 'app' is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from captum_astro.app.layout import page as made

    return made(Handlers(Settings(), tmp_path_factory.mktemp("kept")))


def _calls(page: Any, trigger: str, event: str) -> list[Any]:
    """What is called when something happens to a part of the page."""
    [part] = [block for block in page.blocks.values() if getattr(block, "elem_id", None) == trigger]
    return [call for call in page.fns.values() if (part._id, event) in call.targets]


def _ids(parts: list[Any]) -> list[str]:
    return [getattr(part, "elem_id", None) or type(part).__name__ for part in parts]


def test_fields_are_read_in_the_order_of_a_wish() -> None:
    fields = Fields("image", "crop", "model", "weights", "prompts", ["a", "b"], "target", "against", True, ["k", "tau"])
    assert fields.all[:9] == ["image", "crop", "model", "weights", "prompts", "a", "b", "target", "against"]
    assert fields.all[9:] == [True, "k", "tau"]


def test_explaining_reads_the_visit_and_all_fields_and_runs_alone(page: Any) -> None:
    [explain] = _calls(page, "explain", "click")
    [curves] = _calls(page, "curves-button", "click")
    read = _ids(explain.inputs)
    assert read[0] == "State"
    assert {"image", "model", "checkpoint", "prompts", "class-a", "class-b", "vita", "crop"} <= set(read)
    assert {"maps", "python", "command", "curves"} <= set(_ids(explain.outputs))
    assert {explain.concurrency_id, curves.concurrency_id} == {"model"}
    assert explain.concurrency_limit == 1


def test_every_map_of_an_image_is_followed_by_what_works_with_the_model(page: Any) -> None:
    [explain] = _calls(page, "explain", "click")
    after = [call for call in page.fns.values() if call.trigger_after == explain._id]
    assert [_ids(call.outputs) for call in after] == [["verdict"]]
    assert after[0].trigger_only_on_success
    assert after[0].concurrency_id == "check"  # beside the maps


@pytest.mark.parametrize(("part", "event"), [("image", "change"), ("model", "change"), ("prompts", "blur")])
def test_a_new_image_or_model_is_looked_at_and_explained(page: Any, part: str, event: str) -> None:
    looked = [call for call in _calls(page, part, event) if "class-a" in _ids(call.outputs)]
    assert len(looked) == 1
    following = [call for call in page.fns.values() if call.trigger_after == looked[0]._id]
    assert len(following) == 1
    assert "maps" in _ids(following[0].outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_downloads(page: Any, kind: str) -> None:
    [made] = _calls(page, f"download-{kind}", "click")
    [saved] = [call for call in page.fns.values() if call.trigger_after == made._id]
    assert "download" in saved.js or "save" in saved.js.lower()


def test_an_expected_error_is_a_message_and_another_is_not(page: Any) -> None:
    [explain] = _calls(page, "explain", "click")
    nothing = [None] * len(explain.inputs)
    with pytest.raises(gr.Error):
        explain.fn(Visit(), *["" if part is None else part for part in nothing[1:]])


def test_nothing_of_it_is_an_interface_for_programs(page: Any) -> None:
    assert not [call for call in page.fns.values() if call.api_visibility == "public"]


def test_the_folder_of_the_handlers_is_not_written_to_by_the_page(tmp_path: Path) -> None:
    from captum_astro.app.layout import page as made

    made(Handlers(Settings(), tmp_path / "kept"))
    assert not list(tmp_path.rglob("*.png"))
