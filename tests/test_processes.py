"""What was started ends with the process that started it, even if that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captum_astro.processes import end_with_parent

STARTS = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from captum_astro.processes import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), end_with_parent)
    idle = pool.submit(os.getpid).result()
    busy = pool.submit(time.sleep, 600)
    print(*pool._processes, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are seen in /proc")
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "starts.py").write_text(STARTS)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "starts.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert workers
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 60
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < end, f"{workers} go on"
        time.sleep(0.05)


def test_a_process_that_nobody_started_goes_on() -> None:
    end_with_parent()


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
