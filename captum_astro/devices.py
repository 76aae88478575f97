"""The devices of this machine."""

from __future__ import annotations

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
