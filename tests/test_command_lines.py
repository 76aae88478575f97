"""Command lines for everybody: the shell reads them as they were meant."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from captum_astro.command_lines import WIDTH, portable, quoted, wrapped


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("hf:/data/pets:test", "hf:$DATA/pets:test"), ("hf:C:/pets", "hf:$DATA/pets"), ("hf:./pets", "hf:$DATA/pets"),
        ("hf:uoft-cs/cifar10:test", "hf:uoft-cs/cifar10:test"), ("folder:it's here", "folder:$DATA/it's here"),
        ("scenes", "scenes"), (r"boxes:C:\me\photos", "boxes:$DATA/photos"),
        ("boxes:/me/photos/", "boxes:$DATA/photos"),
    ],
)  # fmt: skip
def test_data_without_its_place(data: str, expected: str) -> None:
    assert portable(data) == expected


WORDS = (
    "plain", "a b", "it's", 'say "x"', "$HOME", "$(id)", "`id`", "a\\b", "*", "$DATA/a b", "$RUNS/x", "$DATAX", "", "#",
)  # fmt: skip
MEANT = [word.replace("$DATA/", "D/").replace("$RUNS/", "R/") for word in WORDS]


def _read(line: str) -> list[str]:
    """The arguments that a shell gives to a command."""
    shell = shutil.which("bash") or shutil.which("sh")
    if shell is None:
        pytest.skip("there is no shell")
    script, folders = f"set -- {line}\nprintf '%s\\n' \"$@\"", {"DATA": "D", "RUNS": "R"}
    done = subprocess.run([shell, "-c", script], env=folders, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def test_a_shell_reads_each_word() -> None:
    assert _read(" ".join(map(quoted, WORDS))) == MEANT


def test_a_wrapped_command_has_the_same_words() -> None:
    text = wrapped(["command", *(f"--option-{i}={quoted(word)}" for i, word in enumerate(WORDS))])
    assert max(map(len, text.splitlines())) <= WIDTH + 2
    assert _read(text) == ["command", *(f"--option-{i}={word}" for i, word in enumerate(MEANT))]


def test_a_word_that_fits_no_line_stays_whole() -> None:
    assert wrapped(["a", "b", "x" * 200, "c"]) == "a b \\\n    " + "x" * 200 + " \\\n    c"
