"""This machine and its devices."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def check_device(device: torch.device | str) -> None:
    """Check that tensors can be put on a device.

    Args:
        device: As for ``torch.device``: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ...

    Raises:
        ValueError: If there is no such device here; the message lists those that there are.

    Example:
        >>> check_device("cpu")
        >>> check_device("meta")
        Traceback (most recent call last):
            ...
        ValueError: This machine has no device 'meta'. It has ...
    """
    if str(device) not in (known := devices()):
        raise ValueError(f"This machine has no device {str(device)!r}. It has {', '.join(known)}.")


def devices() -> list[str]:
    """The names of the devices of this machine, the CPU first; none is touched.

    Example:
        >>> devices()[0]
        'cpu'
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is None:
        return ["cpu"]
    return ["cpu", found.type, *(f"{found.type}:{index}" for index in range(torch.accelerator.device_count()))]


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
