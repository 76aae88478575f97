"""When, where and with which files a benchmark is made: for its readers, as the results do not depend on them."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import torch

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


def machine(device: str = "cpu") -> str:
    """What the last digits of sums may depend on: system, processor, its instructions, threads, and the GPU in use.

    Args:
        device: The device of the models.

    Example:
        >>> platform.system() in machine()
        True
    """
    instructions, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    words = [platform.system(), platform.machine(), _processor(), instructions, f"{threads} of {os.cpu_count()} cores"]
    if torch.device(device).type == "cuda":
        words.append(torch.cuda.get_device_name(device))
    return ", ".join(word for word in words if word)


def _processor() -> str:
    """The processor's name, which Linux does not tell Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
