"""What an explanation takes is counted to the byte, and what is free is what the system says."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from captum_astro.attr._memory import Peak, free_memory

KIB = 4096  # bytes of 1024 numbers


def test_tensors_count_as_long_as_they_live() -> None:
    weight = torch.ones(1024)
    with Peak() as peak:
        _ = weight.view(32, 32).T, weight.detach(), weight.expand(9, -1), weight.add_(1)
        assert peak.bytes == 0  # nothing new
        x = weight + 1
        y = x.view(32, 32)
        assert peak.bytes == KIB
        del x
        z = y * 2
        assert peak.bytes == 2 * KIB  # the view holds it
        del y, z
        for _ in range(3):
            _ = weight + 1
        assert peak.bytes == 2 * KIB
        _ = torch.ones(3072).split(1024)
        assert peak.bytes == 4 * KIB  # with the last sum


def test_what_is_kept_for_the_backward_pass_counts() -> None:
    weight = torch.ones(1024, requires_grad=True)
    with Peak() as peak:
        loss = weight.exp().exp().exp().sum()
        assert 3 * KIB <= peak.bytes <= 3 * KIB + 8
        loss.backward()
    assert peak.bytes >= 4 * KIB


@pytest.mark.parametrize(
    ("run", "size"),
    [
        (lambda: torch.eye(32).to_sparse(), KIB),  # the sparse copy does not count
        (lambda: torch.eye(32).to_mkldnn(), KIB),
        pytest.param(
            lambda: torch.cond(torch.tensor(True), lambda x: x + 1, lambda x: x - 1, (torch.ones(1024),)),
            2 * KIB,
            marks=pytest.mark.skipif(
                not hasattr(TorchDispatchMode, "supports_higher_order_operators"),
                reason="modes of this PyTorch do not see higher-order operators",
            ),
        ),
    ],
    ids=["sparse", "opaque", "higher-order"],
)
def test_operations_of_every_kind_run(run: Callable[[], torch.Tensor], size: int) -> None:
    with Peak() as peak:
        made = run()
    assert isinstance(made, torch.Tensor)
    assert peak.bytes == size


V1, V2 = "4:memory:/a/b\n3:cpu:/\n", "0::/a\n"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 2 * 2**30),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 7 kB\n"}, 7 * 1024),
        ({"proc/meminfo": "MemTotal: 9 kB\n"}, 2 * 2**30),
        ({"proc/self/cgroup": V2, "a/memory.max": "max", "a/memory.current": "5"}, 7 * 1024),
        ({"proc/self/cgroup": V2, "a/memory.max": "1000", "a/memory.current": "400"}, 7 * 1024),
        ({"proc/self/cgroup": V2, "a/memory.max": "1000", "a/memory.current": "400", "a/memory.stat": ""}, 600),
        ({"proc/meminfo": "MemAvailable:\n"}, 2 * 2**30),
        ({"proc/self/cgroup": "\nno group\n"}, 7 * 1024),
        pytest.param(
            {
                "proc/self/cgroup": "0::/\udcff\n",  # any bytes but 0 and / may be in a name
                "\udcff/memory.max": "1000",
                "\udcff/memory.current": "400",
                "\udcff/memory.stat": "",
            },
            600,
            marks=pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 need Linux"),
        ),
        (
            {
                "proc/self/cgroup": V2,
                "memory.max": "1000",
                "memory.current": "900",
                "memory.stat": "anon 600\ninactive_file 300\n",
            },
            400,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "memory/a/memory.limit_in_bytes": "1000",
                "memory/a/memory.usage_in_bytes": "1200",
                "memory/a/memory.stat": "inactive_file 9\ntotal_inactive_file 50\n",
            },
            0,
        ),
    ],
)
def test_free_memory(tmp_path: Path, files: dict[str, str], free: int) -> None:
    if "proc/self/cgroup" in files:
        files = {"proc/meminfo": "MemAvailable: 7 kB\n", **files}
    for name, text in files.items():
        file = tmp_path / (name if name.startswith("proc") else f"sys/fs/cgroup/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(text))
    assert free_memory(tmp_path) == free
