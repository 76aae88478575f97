"""Starting the app."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_astro.app.settings import Settings
from captum_astro.extras import require

_WAITING = 20  # requests in the queue; more are told to come back
_SLACK = 2**20  # bytes of a request around its files


def launch(
    folder: Path | str | None = None,
    models: Sequence[str] = (),
    *,
    host: str | None = None,
    port: int | None = None,
    open_browser: bool = False,
    wait: bool = True,
) -> str:
    """Start the app, and serve it until it is interrupted.

    It answers on this machine only, asks nothing of any other, and has no sharing link. Uploads go to a folder of its
    own, and from there into memory; nothing that visitors do is kept.

    Args:
        folder: A folder whose images and weights files can be chosen on the page.
        models: The only models that can be chosen. Where strangers use the app, name some: any other can fill the
            memory.
        host: The address to answer on. By default ``GRADIO_SERVER_NAME``, which a Space sets, otherwise 127.0.0.1.
        port: The port; by default ``GRADIO_SERVER_PORT``, otherwise the first free one from 7860.
        open_browser: Open the page.
        wait: Return when it is interrupted; otherwise at once, and it runs until the program ends.

    Returns:
        The page's address.

    Raises:
        MissingExtraError: If Gradio is not installed.
        ValueError: If there is no such folder.
        OSError: If the port is taken.
    """
    require("The app", "gradio")
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"{folder}: there is no such folder.")
    settings = Settings(None if folder is None else Path(folder), tuple(models))
    own = tempfile.mkdtemp(prefix="captum-astro-app-")  # for this user only
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    os.environ |= {"GRADIO_TEMP_DIR": own, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    blocks, looks = _page(settings, Path(own))
    blocks.queue(max_size=_WAITING, api_open=False)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        max_file_size=settings.upload,
        allowed_paths=[],
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        footer_links=[],
        state_session_capacity=100,
        app_kwargs={"middleware": [_guard(settings)], "docs_url": None, "redoc_url": None, "openapi_url": None},
        **looks,
    )
    if wait:
        print(f"The app is at {address} (stop it with Ctrl+C).")  # noqa: T201
        blocks.block_thread()
    return str(address)


def _page(settings: Settings, own: Path) -> tuple[Any, dict[str, Any]]:
    """The page and how it looks; Gradio is imported here, once its environment is set."""
    from captum_astro.app.handlers import Handlers
    from captum_astro.app.layout import looks, page

    handlers = Handlers(settings, own)
    handlers.warm()
    return page(handlers), looks()


def _guard(settings: Settings) -> Any:
    from starlette.middleware import Middleware

    from captum_astro.app.guard import Guard

    return Middleware(Guard, largest=settings.images * settings.upload + _SLACK)
