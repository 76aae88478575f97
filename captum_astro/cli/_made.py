"""How a run of ``captum-astro vita``, ``ablate`` or ``parts`` was made, for the page that reports it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def record_made(
    out: Path, command: str, data: str, device: str, options: Mapping[str, Any], run: Path | None = None
) -> str:
    """Write ``made.json``: the command, for anyone's folders ``$DATA`` and ``$RUNS``, the day, machine and versions.

    Args:
        out: The run's folder.
        command: The command, such as ``vita search``.
        data: The dataset, as it was given; empty if the command needs none.
        device: The model's device.
        options: The other options by name; None and an empty list are left out, a path is a file in ``$DATA``.
        run: The folder of another run that the command reads.

    Returns:
        The same in Markdown.
    """
    from captum_astro.command_lines import DATA, portable, quoted, wrapped
    from captum_astro.devices import machine
    from captum_astro.storage import write_whole
    from captum_astro.versions import LIBRARIES, versions

    out = out.resolve()
    runs = out.parent
    words = [f"captum-astro {command}"]
    if run is not None:
        run = run.resolve()
        runs = next((folder for folder in out.parents if run.is_relative_to(folder)), runs)  # where both are
        words.append(quoted(f"$RUNS/{run.relative_to(runs).as_posix() if run.is_relative_to(runs) else run.name}"))
    words += [f"--data {quoted(portable(data))}"] if data else []
    for name, value in options.items():
        if isinstance(value, bool):
            words += [f"--{'' if value else 'no-'}{name}"]
            continue
        for one in value if isinstance(value, list) else [value]:
            text = f"{DATA}/{one.name}" if isinstance(one, Path) else str(one)
            words += [] if one is None else [f"--{name}={quoted(text)}"]
    made: dict[str, Any] = {
        "command": wrapped([*words, f"--out {quoted(f'$RUNS/{out.relative_to(runs).as_posix()}')}"]),
        "data": portable(data),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(device),
        "versions": versions([*LIBRARIES, "scipy"]),
    }
    write_whole(out / "made.json", lambda file: file.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8"))
    libraries = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"```bash\n{made['command']}\n```\n\n{made['date']} (UTC); {made['machine']}; {libraries}."
