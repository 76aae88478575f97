"""Whatever is printed is safe for the terminal, and every terminal can show it."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.table import Table

from captum_astro.cli._terminal import console, printable
from tests.commands import run_command

HARMFUL = "a\x1b[31m\x07\r\x9b1m\u202e\u2028:a:[b]é"
HARMLESS = r"a\x1b[31m\x07\r\x9b1m\u202e\u2028:a:[b]é"
HELP = """
import sys
from captum_astro import cli
for words in ([], ["explain"], ["ablate"], ["parts"], ["bench"], ["report"], ["check"], ["methods"], ["demo"], ["vita"],
              ["vita", "search"], ["vita", "evaluate"], ["train"], *(["train", t] for t in sys.argv[1].split())):
    sys.argv = ["captum-astro", *words, "--help"]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, words
"""
NARROW = [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp1252"}, {"PYTHONUTF8": "0", "LC_ALL": "C"}]
narrow = pytest.mark.parametrize("environment", NARROW, ids=lambda e: " ".join(e.values()))


def _python(environment: dict[str, str], *words: object, cwd: Path | None = None) -> tuple[int, str]:
    """The exit status and the output of Python in a terminal with another encoding."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONUTF8", "PYTHONIOENCODING", "LC_ALL", "LANG")}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, *map(str, words)], check=False, capture_output=True, cwd=cwd,
        env={**inherited, "PYTHONPATH": root, "PYTHONCOERCECLOCALE": "0", **environment},
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode(environment.get("PYTHONIOENCODING", "ascii"))


def test_printable() -> None:
    assert printable(HARMFUL) == HARMLESS
    assert printable("two\n\tlines of \U0001f42c, été") == "two\n\tlines of \U0001f42c, été"
    assert printable(b"\xff.png".decode("utf-8", "surrogateescape")) == r"\udcff.png"


def test_all_that_is_printed_is_literal(capsys) -> None:
    console.print(HARMFUL)
    table = Table(HARMFUL, box=None)
    table.add_row(HARMFUL)
    console.print(table)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [HARMLESS] * 3


def test_errors_and_warnings(monkeypatch, capsys) -> None:
    code, out = run_command(monkeypatch, capsys, "check", HARMFUL)
    assert code == 1
    assert HARMLESS in out
    code, out = run_command(monkeypatch, capsys, "check", f"--{HARMFUL}")
    assert code == 2
    assert r"--a\x1b[31m" in out

    from captum_astro import cli

    monkeypatch.setattr(cli, "app", lambda **_: warnings.warn(HARMFUL, FutureWarning, stacklevel=1))
    code, out = run_command(monkeypatch, capsys)
    assert (code, out) == (0, f"warning: {HARMLESS}\n")


def test_names_of_files(monkeypatch, capsys, tmp_path: Path) -> None:
    names = ["été:a:[b].png", "red\x1b[31m.png", os.fsdecode(b"\xff.png")]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    code, out = run_command(
        monkeypatch, capsys, "explain", *(tmp_path / name for name in names), "--model", "test_vit", "--no-pretrained",
        "--out", tmp_path / "out\x1b[31m",
    )  # fmt: skip
    assert code == 1
    assert "\x1b" not in out
    for shown in ("été:a:[b].png", r"red\x1b[31m.png", r"\udcff.png"):
        assert f"{tmp_path / shown}: not an image" in out


@narrow
def test_help_on_a_narrow_terminal(environment: dict[str, str]) -> None:
    code, out = _python(environment, "-c", HELP, "cifar10 imdb wikitext2 scenes")
    assert code == 0, out
    assert out.count("Usage: ") == 17


@narrow
def test_names_on_a_narrow_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "names.py"
    script.write_text(
        "import sys\nfrom captum_astro import cli\nsys.argv[1:] = ['check', 'ViT \\u2603']\ncli.main()\n", "utf-8"
    )
    code, out = _python(environment, script)
    assert code == 1
    assert r"timm has no model 'ViT \u2603'" in out
    code, out = _python(environment, "-m", "captum_astro.cli", "methods")
    assert code == 0, out
    assert "VTranM" in out


def test_the_package_runs_as_the_command() -> None:
    code, out = _python({}, "-m", "captum_astro", "vita", "nothing")
    assert (code, out.splitlines()[-1]) == (2, "error: No such command 'nothing'. See captum-astro vita --help.")
