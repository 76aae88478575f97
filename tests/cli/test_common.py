"""Options that several commands have: how they are read, and what is said of wrong ones."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from captum_astro.cli import _common as common


def _run(annotation: Any, *words: str, default: Any = None) -> tuple[int, str, list[Any]]:
    """The exit status of a command with one option, what it said, and the value that it got."""
    app, got = typer.Typer(), list[Any]()

    def command(value: Any = default) -> None:
        got.append(value)

    command.__annotations__["value"] = annotation
    app.command()(command)
    result = CliRunner().invoke(app, words)
    return result.exit_code, " ".join(result.output.split()), got


NUMBERS = {
    "whole": Annotated[int | None, common.whole_number("How many.", "--value", least=2, most=9)],
    "number": Annotated[float | None, common.finite_number("How much.", "--value")],
    "choice": Annotated[str | None, common.one_of("Which.", "a", "b", names=["--value"])],
}


@pytest.mark.parametrize(
    ("kind", "text", "value"), [("whole", "2", 2), ("whole", "9", 9), ("number", "-1e-3", -0.001), ("choice", "b", "b")]
)
def test_values_are_read(kind: str, text: str, value: Any) -> None:
    assert _run(NUMBERS[kind], "--value", text)[::2] == (0, [value])


@pytest.mark.parametrize(("kind", "default"), [("whole", 100), ("number", 2.5), ("choice", "a"), ("whole", None)])
def test_defaults_are_left_as_they_are(kind: str, default: Any) -> None:
    assert _run(NUMBERS[kind], default=default)[::2] == (0, [default])


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("whole", "1", "it must be a whole number from 2 to 9, not '1'"), ("whole", "2.5", "a whole number"),
        ("whole", "two", "a whole number"), ("number", "nan", "it must be a number, not 'nan'"),
        ("number", "inf", "a number"), ("choice", "c", "it must be a or b, not 'c'"), ("choice", "A", "a or b"),
    ],
)  # fmt: skip
def test_wrong_values_are_named_with_what_is_right(kind: str, text: str, message: str) -> None:
    code, said, got = _run(NUMBERS[kind], "--value", text)
    assert (code, got) == (2, [])
    assert message in said.replace("│ ", "")


def test_limits_have_the_short_name() -> None:
    assert _run(common.Limit, "-n", "3")[::2] == _run(common.Limit, "--limit", "3")[::2] == (0, [3])
    assert _run(common.Limit, "-n", "0")[0] == 2


def test_a_folder_that_is_a_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("")
    option = Annotated[Path, common.out_folder("Where.")]
    for good in (tmp_path, tmp_path / "new" / "one"):
        assert _run(option, "--out", str(good), default=Path("a"))[::2] == (0, [good])
    for bad in (there, there / "inside" / "deeper"):
        with pytest.raises(ValueError, match=f"--out {bad}: {there} is a file; give a folder"):
            common._no_file(bad)


def test_names_may_be_repeated_and_joined() -> None:
    assert common.named("--method", ["a,b", " c "]) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="--method"):
        common.named("--method", [","])


def test_a_model_is_no_method() -> None:
    assert common.named_methods(["VTranM,LRP:precision=float32"]) == ["VTranM", "LRP:precision=float32"]
    with pytest.raises(ValueError, match="--method vit_tiny_patch16_224: that is a model, which --model"):
        common.named_methods(["VTranM", "vit_tiny_patch16_224"])
    with pytest.raises(ValueError, match="that is a model"):
        common.named_methods(["vit_tiny_patch16_224.augreg_in21k"])
    assert common.named_methods(["no_such_thing"]) == ["no_such_thing"]  # which is said later


def test_examples_end_the_help() -> None:
    @common.examples("explain cat.jpg", "explain dog.jpg -n 2")
    def command() -> None:
        """Does something.

        At length.
        """

    assert inspect.getdoc(command) == (
        "Does something.\n\nAt length.\n\n\b\nExamples:\n"
        "  captum-astro explain cat.jpg\n  captum-astro explain dog.jpg -n 2"
    )


def test_a_device_that_is_not_there_is_named() -> None:
    assert _run(common.Device, "--device", "cpu", default="cpu")[::2] == (0, ["cpu"])
    code, said, got = _run(common.Device, "-d", "tpu9", default="cpu")
    assert (code, got) == (2, [])
    assert "tpu9" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [(["explain", ""], "An argument"), (["--out", " "], "--out"), (["--out="], "--out"), (["-o", ""], "An argument")],
)
def test_empty_words_are_refused(words: list[str], named: str) -> None:
    with pytest.raises(common.UsageError, match=f"{named} is empty: give a value, or leave it out"):
        common.reject_empty(words)


def test_words_with_something_in_them_are_not() -> None:
    common.reject_empty([])
    common.reject_empty(["explain", "a b", "--out=x", "-o", "=", "k=", "--"])
