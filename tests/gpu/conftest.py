"""Everything here needs a GPU: it is marked, and skipped without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

_SKIP = pytest.mark.skip(reason="this machine has no CUDA GPU")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(_SKIP)
