"""A benchmark on two hosts under torchrun: network namespaces that are joined by a link, and die at random moments."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.evaluation.making import contents
from tests.evaluation.run.hosts import Host, two_hosts

KILLS = int(os.environ.get("CAPTUM_ASTRO_KILLS", "1"))
CHUNKS = 12 + 4 * (KILLS - 1)
PATIENCE = 400.0  # seconds
BENCH = (
    "-m captum_astro.cli bench --models astromorphic_scenes_tiny_patch8_64 --methods VTranM,Random --data scenes "
    f"--limit {CHUNKS} --metrics auc --chunk-size 1 --steps 20 --examples 2 --batch-size 8 --out"
)
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")},
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.getcwd(),
}


class Job:
    """The same benchmark on both hosts.

    Args:
        hosts: Of which the first holds the rendezvous.
        folders: Each host's folder for the results.
        logs: Where the hosts' output goes.
    """

    def __init__(self, hosts: list[Host], folders: list[Path], logs: Path) -> None:
        self.hosts, self.folders, self._logs = hosts, folders, logs

    def start(self, number: int) -> None:
        endpoint = f"{self.hosts[0].address}:29500"
        torchrun = (
            f"-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --node-rank {number} --rdzv-backend c10d "
            f"--rdzv-endpoint {endpoint} --max-restarts 3 --monitor-interval 0.2 "
            "--rdzv-conf keep_alive_interval=1,keep_alive_max_attempt=5,read_timeout=10"
        )
        command = [sys.executable, *torchrun.split(), *BENCH.split(), str(self.folders[number])]
        self.hosts[number].start(command, self._log(number), ENVIRONMENT)

    def start_what_ended(self) -> None:
        """As a service manager does."""
        for number, status in enumerate(self.ended):
            if status is not None:
                self.start(number)

    @property
    def ended(self) -> list[int | None]:
        return [host.ended for host in self.hosts]

    def said(self) -> str:
        return "\n".join(f"{self._log(i)}:\n{self._log(i).read_text()}" for i in range(len(self.hosts)))

    def _log(self, number: int) -> Path:
        return self._logs / f"host-{number}.log"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(two_hosts(tmp_path_factory.mktemp("net")))
        except OSError as error:
            pytest.skip(f"two hosts cannot be made here: {error}")
        yield made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one process that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, *BENCH.split(), str(folder)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    return _rows(folder)


@pytest.mark.parametrize("folders", ["one", "two"])
def test_two_hosts_give_the_rows_of_one_process(
    hosts: list[Host], undisturbed: dict[str, bytes], tmp_path: Path, folders: str
) -> None:
    first, second = tmp_path / "first", tmp_path / ("first" if folders == "one" else "second")
    with _job(hosts, [first, second], tmp_path) as job:
        if second != first:
            _until(lambda: _chunks(second) == CHUNKS // 2 and "Waiting for 6 chunks" in job.said(), job)
            for name in ("maps", "chunks"):
                shutil.copytree(second / name, first / name, dirs_exist_ok=True)
        _until(lambda: None not in job.ended, job)
        assert job.ended == [0, 0], job.said()
    assert _rows(first) == undisturbed


@pytest.mark.timeout(600 * KILLS)
def test_hosts_die_and_come_back(hosts: list[Host], undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    moments, folder = random.Random(0), tmp_path / "out"
    with _job(hosts, [folder, folder], tmp_path) as job:
        for kill, chunks in enumerate(sorted(moments.sample(range(CHUNKS), KILLS))):
            _until(lambda least=chunks: _chunks(folder) >= least, job, again=True)
            time.sleep(moments.random())
            victim = moments.choice(hosts)
            print(f"{victim.name} dies after {_chunks(folder)} of {CHUNKS} chunks")
            if kill % 3 == 0:  # the other learns nothing from the network
                victim.link("down")
            victim.die()
            time.sleep(moments.random())
            victim.link("up")
            job.start_what_ended()
        _until((folder / "results.parquet").exists, job, again=True)
    assert _rows(folder) == undisturbed


@contextlib.contextmanager
def _job(hosts: list[Host], folders: list[Path], logs: Path) -> Iterator[Job]:
    job = Job(hosts, folders, logs)
    try:
        for number in range(len(hosts)):
            job.start(number)
        yield job
    finally:
        for host in hosts:
            host.die()


def _until(true: Callable[[], bool], job: Job, *, again: bool = False) -> None:
    """Wait; ``again``: what ends is started again."""
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, job.said()
        if again:
            job.start_what_ended()
        time.sleep(0.02)


def _chunks(folder: Path) -> int:
    return len(list(folder.glob("chunks/rows-*")))


def _rows(folder: Path) -> dict[str, bytes]:
    """All files but the record, which tells the day, and what killed processes leave."""
    return {name: held for name, held in contents(folder).items() if Path(name).suffix == ".parquet"}
