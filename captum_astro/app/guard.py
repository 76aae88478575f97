"""What the server answers: the page's own requests and nothing else.

Gradio has many more routes: files, proxies, a history, an API. This app uses none of them, so they are closed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_READ = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(assets|static)/[\w./@+-]+"
    r"|/gradio_api/(info|startup-events|queue/data|upload_progress|heartbeat/\w+)"
)
_WRITTEN = re.compile(r"/gradio_api/(queue/join|upload|cancel|reset)/?")
_JOIN = 2**20  # bytes of the values of all fields
_POLICY = (  # nothing from elsewhere, neither scripts nor fonts nor pictures
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class Guard:
    """Middleware that lets the page's requests through, up to a size, and adds a content security policy.

    Args:
        app: The application.
        largest: Bytes of one request that uploads files.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], largest: int) -> None:
        self._app, self._largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        status = self._refusal(scope)
        if status is not None:
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return

        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, sent)

    def _refusal(self, scope: Scope) -> int | None:
        """The status of a request that is refused; None for one of the page's own."""
        if scope["type"] != "http":
            return 403
        path, method = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")), scope["method"]
        if method in ("GET", "HEAD"):
            return None if _READ.fullmatch(path) and ".." not in path else 404
        if method != "POST" or not _WRITTEN.fullmatch(path):
            return 404
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411
        return 413 if int(length) > (self._largest if path.startswith("/gradio_api/upload") else _JOIN) else None
