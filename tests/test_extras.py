from __future__ import annotations

import sys

import pytest

from captum_astro.extras import MissingExtraError, explained, needed, require
from tests.commands import run_command


def test_missing_libraries_and_their_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("pandas", "tokenizers", "google_crc32c", "scipy"):
        monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    for libraries, message in (
        (("tokenizers",), 'X needs tokenizers, which is not installed: pip install "captum-astro[train]"'),
        (("google_crc32c",), 'X needs google-crc32c, which is not installed: pip install "captum-astro[clickme]"'),
        (("scipy.stats", "jinja2"), 'X needs scipy, which is not installed: pip install "captum-astro[bench]" or'),
        (("pandas", "scipy"), "X needs pandas and scipy, which are not installed: pip install"),
        (("pandas", "google_crc32c"), 'which are not installed: pip install "captum-astro[all]"'),
    ):
        with pytest.raises(MissingExtraError) as caught:
            require("X", *libraries)
        assert message in str(caught.value)
    assert isinstance(caught.value, ImportError)
    with pytest.raises(MissingExtraError, match="The table needs pandas"):
        needed("The table", "pandas")
    assert needed("X", "json") is __import__("json")


def test_other_errors_are_unchanged() -> None:
    broken = ImportError("libcudart.so: cannot open")
    assert explained(broken) is broken
    other = ModuleNotFoundError("No module named 'rickety'", name="rickety")
    assert explained(other) is other
    ours = ModuleNotFoundError("No module named 'pandas.core'", name="pandas.core")
    assert 'This command needs pandas, which is not installed: pip install "captum-astro[' in str(explained(ours))


def test_command_exits_with_one_line_and_status_2(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for name in [name for name in sys.modules if name.startswith("captum_astro.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    words = ["bench", "--models", "vit_tiny_patch16_224", "--data", "scenes", "--out", "nowhere"]
    code, out = run_command(monkeypatch, capsys, *words)
    assert code == 2
    assert out == 'error: The evaluation needs pandas, which is not installed: pip install "captum-astro[bench]"\n'
