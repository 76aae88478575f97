"""Help, version and completion; and that an option is the same in every command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from captum_astro.cli import app
from tests.commands import run_command

ROOT = Path(__file__).parents[2]
SLOW = ("torch", "timm", "captum", "numpy", "matplotlib")


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


EVERY = dict(_commands(get_command(app)))
LEAVES = {path: command for path, command in EVERY.items() if not hasattr(command, "commands")}
every = pytest.mark.parametrize("path", EVERY, ids=" ".join)
leaves = pytest.mark.parametrize("path", LEAVES, ids=" ".join)


def _help(path: tuple[str, ...], option: str = "--help") -> str:
    result = CliRunner().invoke(app, [*path, option], env={"COLUMNS": "80"}, prog_name="captum-astro")
    assert result.exit_code == 0
    return result.output


@every
def test_help_fits_into_80_columns_and_cuts_nothing(path: tuple[str, ...]) -> None:
    text = _help(path)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert max(map(len, text.splitlines())) <= 80
    listed = text.partition("Commands:\n")[2].splitlines()
    assert not [line for line in listed if line.endswith("...")]
    assert text == _help(path, "-h")


@leaves
def test_help_names_every_option_and_default_whole(path: tuple[str, ...]) -> None:
    words = "".join(_help(path).split())
    for option in LEAVES[path].params:
        for name in (*option.opts, *option.secondary_opts):
            assert not name.startswith("-") or name in words
        if option.param_type_name == "option" and option.default and not option.is_flag:
            default = "".join(str(option.default).split())
            assert f"[default:{default}]" in words, option.name


def _examples(path: tuple[str, ...]) -> list[list[str]]:
    lines = _help(path).partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    return [shlex.split(line) for line in lines]


@leaves
def test_examples_are_valid(path: tuple[str, ...]) -> None:
    found = _examples(path)
    assert found
    for program, *words in found:
        assert program == "captum-astro"
        assert tuple(words[: len(path)]) == path
        LEAVES[path].make_context(" ".join(path), words[len(path) :])


def test_an_option_has_the_same_names_everywhere() -> None:
    letters, names = defaultdict(set), defaultdict(set)
    for command in LEAVES.values():
        for option in command.params:
            opts = [name for name in option.opts if name.startswith("-")]
            short = [name for name in opts if not name.startswith("--")]
            for name in opts:
                if name.startswith("--"):
                    names[name].add(tuple(short))
            for letter in short:
                letters[letter].add(next(name for name in opts if name.startswith("--")))
    assert {letter: sorted(own) for letter, own in letters.items()} == {
        "-M": ["--model"],
        "-b": ["--batch-size"],
        "-c": ["--checkpoint"],
        "-d": ["--device"],
        "-m": ["--method"],
        "-n": ["--limit"],
        "-o": ["--out"],
        "-t": ["--target"],
    }
    assert {name: own for name, own in names.items() if len(own) > 1} == {}


def test_version(monkeypatch, capsys) -> None:
    for option in ("--version", "-V"):
        assert run_command(monkeypatch, capsys, option) == (0, f"captum-astro {version('captum-astro')}\n")


@pytest.mark.parametrize("words", [["methods"], ["--version"], ["explain", "--help"]], ids=" ".join)
def test_what_is_quick_imports_nothing_slow(words: list[str]) -> None:
    code = f"""
import sys
from captum_astro import cli
sys.argv = ["captum-astro", *{words}]
try:
    cli.main()
except SystemExit as end:
    assert not end.code
assert not {{*{SLOW}}} & {{*sys.modules}}, {{*{SLOW}}} & {{*sys.modules}}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "candidates"),
    [("captum-astro exp", {"explain"}), ("captum-astro explain --class", {"--classes", "--class-names"})],
)
def test_completion(line: str, candidates: set[str]) -> None:
    asked = {"_CAPTUM_ASTRO_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    code = "import sys; from captum_astro.cli import main; sys.argv = ['captum-astro']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **asked}
    )
    assert set(done.stdout.split()) == candidates, done.stderr


@pytest.mark.parametrize("path", [path for path in EVERY if path not in LEAVES], ids=" ".join)
def test_a_command_that_needs_another_shows_its_help(monkeypatch, capsys, path: tuple[str, ...]) -> None:
    code, out = run_command(monkeypatch, capsys, *path)
    assert code in (0, 2)  # click 8.1 ends with 0
    assert out.startswith(" ".join(["Usage: captum-astro", *path, "[OPTIONS]"]))
    assert "error" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # typer 0.16 suggests nothing
        (["explian"], r"error: No such command 'explian'\.( Did you mean 'explain'\?)? See captum-astro --help\.\n"),
        (["check"], r"error: Missing argument 'MODEL'\. See captum-astro check --help\.\n"),
    ],
)
def test_wrong_words(monkeypatch, capsys, words: list[str], message: str) -> None:
    code, out = run_command(monkeypatch, capsys, *words)
    assert code == 2
    assert re.fullmatch(message, out)
