from __future__ import annotations

import pytest

from captum_astro.app.networks import Networks
from captum_astro.app.settings import Settings


@pytest.fixture(scope="session")
def networks() -> Networks:
    return Networks(Settings())
