"""A function in a process of its own, with limits of time and memory: what a model does to it ends nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from captum_astro.processes import end_with_parent

_GIGABYTES = 16  # of address space


def apart(function: Callable[[Any], dict[str, Any]], argument: Any, seconds: float) -> dict[str, Any]:
    """A function's result, computed in another process; ``{"error": ...}`` if there is none.

    Args:
        function: Of a module, so that the process can import it. That module is imported once for all processes.
        argument: Its argument.
        seconds: After which the process is ended.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([function.__module__])  # so that each process starts with what is imported here
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, function, argument), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            return {"error": f"No result after {seconds:g} s."}
        found: dict[str, Any] = ours.recv()
        return found
    except EOFError:
        process.join()
        return {"error": f"The process ended with status {process.exitcode}."}
    finally:
        process.kill()
        process.join()


def _send(pipe: Connection, function: Callable[[Any], dict[str, Any]], argument: Any) -> None:
    end_with_parent()
    with contextlib.suppress(ImportError):  # on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_GIGABYTES * 2**30,) * 2)
    try:
        found = function(argument)
    except Exception as error:  # reported as the model's result
        found = {"error": f"{type(error).__name__}: {error}"}
    pipe.send(found)
