"""When, where and with which files a benchmark is made: for its readers, as the results do not depend on them."""

from __future__ import annotations

import datetime
from typing import Any

from captum_astro.devices import machine
from captum_astro.evaluation.specification.config import BenchConfig

NAMES = ("date", "machine", "checkpoints", "classes", "ema", "preset")


def circumstances(config: BenchConfig) -> dict[str, Any]:
    """The day (UTC), the machine, the weights files and how they were read, and the preset.

    Args:
        config: The benchmark.

    Returns:
        `NAMES` with their values, JSON-serialisable. Nothing in it says where files lie on this machine.
    """
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(config.device),
        "checkpoints": [None if model.checkpoint is None else model.checkpoint.name for model in config.models],
        "classes": [model.classes for model in config.models],
        "ema": config.use_ema,
        "preset": None if config.preset is None else list(config.preset),
    }
