"""The same command under torchrun: two processes, one killed with -9 and restarted by the elastic agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from captum_astro.evaluation.specification.metrics import metrics_of
from tests.evaluation.making import NAME, contents

OPTIONS = (
    f"bench --models {NAME} --no-pretrained --methods VTranM,Random --data scenes --limit 16 --metrics all "
    "--chunk-size 1 --steps 20 --examples 2 --batch-size 8"
)


def test_a_worker_is_killed_and_restarted(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    environment = {name: value for name, value in environment.items() if name not in ("RANK", "WORLD_SIZE")}
    words = [*OPTIONS.split(), "--out"]
    alone = [sys.executable, "-m", "tests.evaluation.worker", *words, str(tmp_path / "one")]
    many = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1",
        "--monitor-interval", "0.1", "-m", "tests.evaluation.worker", *words, str(tmp_path / "two"),
    ]  # fmt: skip
    process = subprocess.Popen(
        many, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        victim = _worker(process, tmp_path / "two")
        before = len(list((tmp_path / "two" / "chunks").glob("rows-*")))
        os.kill(victim, signal.SIGKILL)
        said, _ = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said
    assert before < 16, "the worker was to die before the end"
    assert "samples are already done" in said
    one = subprocess.run(alone, env=environment, check=True, capture_output=True, text=True)
    assert f"16 samples, all rows in {tmp_path / 'one'}/results.parquet." in one.stdout
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert len(metrics_of("all")) == 22


def _worker(process: subprocess.Popen[str], folder: Path) -> int:
    """A worker's process id, once the first chunks exist."""
    while len(list(folder.glob("chunks/rows-*"))) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"tests.evaluation.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(workers[-1])
