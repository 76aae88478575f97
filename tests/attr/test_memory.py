"""What an explanation takes is counted to the byte, and what is free is what the system says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
        file.write_text(text)
    assert free_memory(tmp_path) == free
