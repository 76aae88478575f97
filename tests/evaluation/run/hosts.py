"""Two hosts with a link between them, as network namespaces of this machine: Linux, root and iproute2 are needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# each has its own name, and finds both by name, as hosts do
AS_HOST = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'


class Host:
    """A host that runs one command at a time, and may die.

    Args:
        name: The name of the host and of its namespace.
        address: Its IPv4 address.
        table: The hosts' ``/etc/hosts``.
    """

    def __init__(self, name: str, address: str, table: Path) -> None:
        self.name, self.address, self._table = name, address, table
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        """Run a command; what it prints is added to a file."""
        within = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", AS_HOST, "sh"]
        with log.open("ab") as to:
            self._process = subprocess.Popen(
                [*within, str(self._table), self.name, *command], env=environment, stdout=to, stderr=subprocess.STDOUT
            )

    @property
    def ended(self) -> int | None:
        """The exit status of the command, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def link(self, state: str) -> None:
        """Set the link ``up`` or ``down``."""
        _ip("-n", self.name, "link", "set", self.name, state)

    def die(self) -> None:
        """Kill all of the host's processes at once."""
        while pids := _ip("netns", "pids", self.name).split():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if self._process is not None:
                self._process.wait()
            time.sleep(0.01)


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[list[Host]]:
    """Make two hosts, and remove them at the end with all that runs there.

    Args:
        folder: Where their ``/etc/hosts`` is written.

    Raises:
        OSError: If they cannot be made here, with the reason.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise OSError("network namespaces need Linux, and root")
    if lacking := [name for name in ("ip", "unshare") if shutil.which(name) is None]:
        raise OSError(f"network namespaces need the command {lacking[0]}")
    table = folder / "hosts"
    hosts = [Host(f"ca{os.getpid()}{end}", f"10.213.7.{i}", table) for i, end in enumerate("ab", 1)]
    lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in hosts)]
    table.write_text("".join(f"{line}\n" for line in lines))
    with contextlib.ExitStack() as stack:
        for host in hosts:
            _ip("netns", "add", host.name)
            stack.callback(_ip, "netns", "delete", host.name)
            stack.callback(host.die)
        ends = [("netns", host.name, "name", host.name) for host in hosts]
        _ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.name)
            _ip("-n", host.name, "link", "set", "lo", "up")
            host.link("up")
        yield hosts


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
