"""A running app, and a client that does what the page does."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from captum_astro.app.handlers import families

ROOT = Path(__file__).parents[2]
_CODE = """
import sys, tempfile
tempfile.tempdir = sys.argv[2]
from captum_astro.app import launch
import captum_astro
print(launch(sys.argv[1], wait=False), flush=True)
sys.stdin.read()
"""


def png(size: tuple[int, int] = (6, 4), colour: str = "navy") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", size, colour).save(held, "PNG")
    return held.getvalue()


PNG = png()


@dataclass(frozen=True)
class Served:
    """A running app: its address, the folder that it offers, and that of its uploads."""

    address: str
    folder: Path
    own: Path


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Served]:
    """Run the app in a process of its own, which ends with the block."""
    temporary = folder.parent / f"{folder.name}-temporary"
    temporary.mkdir()
    command = [sys.executable, "-c", _CODE, str(folder), str(temporary)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http"), "the app did not start"
            yield Served(address.rstrip("/"), folder, next(temporary.glob("captum-astro-app-*")))
        finally:
            process.kill()


class Client:
    """One visitor."""

    def __init__(self, served: Served) -> None:
        import httpx

        self._http = httpx.Client(base_url=served.address, timeout=120)
        self.get, self.post = self._http.get, self._http.post
        self._session = secrets.token_hex(6)
        self._config = self.get("/config").json()

    def uploaded(self, name: str, data: bytes) -> dict[str, Any]:
        """Upload a file; what the page then holds of it."""
        found = self.post("/gradio_api/upload", files={"files": (name, data)})
        if found.status_code != 200:
            raise ValueError(f"{found.status_code} {found.text}")
        return {"path": found.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def call(self, target: str, *values: Any) -> list[Any]:
        """What the field of this name does with some values."""
        field = next(one["id"] for one in self._config["components"] if one["props"].get("elem_id") == target)
        event = next(one for one in self._config["dependencies"] if field in [of for of, _ in one["targets"]])
        states = {one["id"] for one in self._config["components"] if one["type"] == "state"}
        given = iter([[value] if target == "drop" else value for value in values])
        data = [None if one in states else next(given) for one in event["inputs"]]
        body = {"data": data, "fn_index": event["id"], "session_hash": self._session, "trigger_id": field}
        self.post("/gradio_api/queue/join", json=body).raise_for_status()
        return self._answer()

    def look(self, image: str, model: str = "scenes_vit_tiny_patch4_64") -> list[Any]:
        """Choose an image: what is drawn, and the classes to choose from."""
        methods: list[list[str]] = [[] for _ in families()]
        return self.call("image", image, "center", model, "", "", *methods, None, None, False, 6, 3, -0.5, 1.5, 0.05)

    def _answer(self) -> list[Any]:
        end = time.monotonic() + 120
        with self._http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self._session}) as lines:
            for line in lines.iter_lines():
                said = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {"msg": ""}
                if said["msg"] == "log":
                    raise ValueError(said["log"])
                if said["msg"] == "process_completed":
                    if not said["success"]:
                        raise ValueError(said["output"].get("error"))
                    found: list[Any] = said["output"]["data"]
                    return found
                assert time.monotonic() < end, said
        raise AssertionError("no answer")
