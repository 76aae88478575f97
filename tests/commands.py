"""Runs ``captum-astro`` as a user would, in this process."""

from __future__ import annotations

import pytest

from captum_astro import cli


def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """The exit status and the output."""
    monkeypatch.setattr("sys.argv", ["captum-astro", *map(str, words)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out + captured.err
