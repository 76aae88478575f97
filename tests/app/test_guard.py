"""What the guard lets through, without a server behind it."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from captum_astro.app.guard import Guard, Receive, Send

LARGEST = 3 * 2**20  # of an upload, in bytes
JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"


async def _app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"told"})


def _answer(**scope: Any) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("nothing is read")

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    made = {"type": "http", "method": "GET", "path": "/", "headers": [], **scope}
    asyncio.run(Guard(_app, LARGEST)(made, receive, send))
    return sent


@pytest.mark.parametrize(
    ("method", "path", "length", "status"),
    [
        ("GET", "/", None, 200),
        ("HEAD", "/config", None, 200),
        ("GET", "/assets/index-a1.js", None, 200),
        ("GET", "/gradio_api/queue/data", None, 200),
        ("GET", "/gradio_api/file=/etc/passwd", None, 404),
        ("GET", "/static/../config.py", None, 404),
        ("GET", "/config\n", None, 404),
        ("GET", JOIN, None, 404),
        ("PUT", JOIN, b"1", 404),
        ("POST", "/", b"1", 404),
        ("POST", JOIN, None, 411),
        ("POST", JOIN, b"-1", 411),
        ("POST", JOIN, b"%d" % 2**20, 200),
        ("POST", JOIN, b"%d" % (2**20 + 1), 413),
        ("POST", UPLOAD, b"%d" % LARGEST, 200),
        ("POST", UPLOAD, b"%d" % (LARGEST + 1), 413),
    ],
)
def test_requests(method: str, path: str, length: bytes | None, status: int) -> None:
    headers = [] if length is None else [(b"content-length", length)]
    start, body = _answer(method=method, path=path, headers=headers)
    assert start["status"] == status
    assert body.get("body", b"") == (b"told" if status == 200 else b"")


def test_a_page_below_another_one() -> None:
    assert _answer(path="/app/config", root_path="/app/")[0]["status"] == 200
    assert _answer(path="/app/run", root_path="/app")[0]["status"] == 404


def test_what_is_no_request() -> None:
    assert _answer(type="websocket")[0]["status"] == 403
    assert _answer(type="lifespan")[0]["headers"] == [(b"a", b"b")]


def test_answers_have_a_policy() -> None:
    headers = dict(_answer()[0]["headers"])
    assert headers[b"a"] == b"b"
    assert headers[b"content-security-policy"].startswith(b"default-src 'self';")
    assert headers[b"x-content-type-options"] == b"nosniff"
