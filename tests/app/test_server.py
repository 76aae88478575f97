"""The server: what it answers to whom. Needs Gradio, but no browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captum_astro.app.server import launch
from captum_astro.extras import MissingExtraError
from tests.app.serving import PNG, Client, Served, serve

pytest.importorskip("gradio", reason="the extra 'app' is not installed")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "inside.png").write_bytes(PNG)
    (folder / "notes.txt").write_text("secret")
    with serve(folder) as found:
        yield found


def test_it_answers_on_this_machine_only(served: Served) -> None:
    assert served.address.startswith("http://127.0.0.1:")
    page = Client(served).get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file={folder}/inside.png",
        "/gradio_api/file={folder}/notes.txt",
        "/gradio_api/file={own}",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/static/../../../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/__init__.py",
        "/static/..%2f..%2f..%2frequirements.txt",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/custom_component/1/client/x/..%2f..%2fa",
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/runs",
        "/monitoring",
        "/openapi.json",
        "/docs",
        "/nothing",
    ],
)
def test_no_route_reads_a_file(served: Served, path: str) -> None:
    found = Client(served).get(path.format(folder=served.folder, own=served.own))
    assert found.status_code in (403, 404), (path, found.text[:200])
    assert "root:" not in found.text
    assert "secret" not in found.text


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/run/predict", "/gradio_api/api/predict", "/gradio_api/call/explain", "/gradio_api/component_server",
     "/gradio_api/process_recording", "/gradio_api/run-history/connect", "/login"],
)  # fmt: skip
def test_there_is_no_api(served: Served, path: str) -> None:
    assert Client(served).post(path, json={"data": []}).status_code == 404
    assert json.loads(Client(served).get("/gradio_api/info").text)["named_endpoints"] == {}


def test_an_upload_becomes_an_image_and_leaves_no_file(served: Served) -> None:
    client = Client(served)
    _, _, images = client.call("drop", client.uploaded("cat.png", PNG))
    assert images["value"] == "cat.png"
    assert images["choices"] == [["cat.png", "cat.png"], ["inside.png", "inside.png"]]
    assert not list(served.own.rglob("*.png"))


def test_visitors_do_not_see_each_others_images(served: Served) -> None:
    one, other = Client(served), Client(served)
    one.call("drop", one.uploaded("mine.png", PNG))
    _, _, images = other.call("drop", other.uploaded("yours.png", PNG))
    assert [name for name, _ in images["choices"]] == ["yours.png", "inside.png"]
    with pytest.raises(ValueError, match=r"&#x27;mine\.png&#x27; is no file of the app"):
        other.look("mine.png")
    drawn, _, _ = one.look("mine.png")
    assert drawn["width"] == 6


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("passwd.png", b"root:x:0:0", "passwd.png: not an image of a known format"),
        ("a\u202egnp.png", PNG, "is no name for an image: rename the file"),
        (".hidden.png", PNG, "is no name for an image: rename the file"),
    ],
)
def test_uploads_are_refused_in_words(served: Served, name: str, data: bytes, message: str) -> None:
    client = Client(served)
    file = client.uploaded(name, data)
    with pytest.raises(ValueError, match=message):
        client.call("drop", file)
    assert not list(served.own.rglob("*.png"))


def test_a_hostile_name_stays_in_the_folder_of_uploads(served: Served) -> None:
    client = Client(served)
    file = client.uploaded("../../../<img src=x onerror=alert(1)>.png", PNG)
    assert served.own in Path(file["path"]).parents
    _, _, images = client.call("drop", file)
    assert not set("<>/") & set(images["value"])


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/inside.png", "{own}/../x.png", "{folder}/notes.txt"])
def test_a_path_that_was_not_uploaded_is_refused(served: Served, path: str) -> None:
    client = Client(served)
    made = {"path": path.format(folder=served.folder, own=served.own), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(ValueError, match="None"):  # Gradio's own message, which names the path, is not shown
        client.call("drop", made)
    assert (served.folder / "inside.png").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../inside.png", "notes.txt/../../x"])
def test_an_image_outside_the_folder_is_refused_in_words(served: Served, path: str) -> None:
    with pytest.raises(ValueError, match=r"is no file of the app&#x27;s folder\. Choose one of the list"):
        Client(served).look(path)


def test_too_large_requests_are_refused(served: Served) -> None:
    client = Client(served)
    with pytest.raises(ValueError, match="413 File size exceeded maximum allowed size of 20971520 bytes"):
        client.uploaded("large.png", bytes(30 * 2**20))
    assert client.post("/gradio_api/queue/join", content=b"x" * 2**21).status_code == 413
    assert client.post("/gradio_api/queue/join", content=iter([b"x"])).status_code == 411
    assert not sum(file.stat().st_size for file in served.own.rglob("*") if file.is_file())


def test_only_offered_models(served: Served) -> None:
    with pytest.raises(ValueError, match="timm has no model &#x27;no_such_vit&#x27;"):
        Client(served).look("inside.png", model="no_such_vit")


def test_gradio_is_imported_with_the_app_only() -> None:
    code = """
import sys
import captum_astro.app, captum_astro.app.handlers, captum_astro.app.layout, captum_astro.cli
assert not {"gradio", "fastapi", "starlette"} & set(sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_missing_library_and_a_missing_folder(monkeypatch: Any) -> None:
    with pytest.raises(ValueError, match="nowhere: there is no such folder"):
        launch("nowhere")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(
        MissingExtraError, match=r'The app needs gradio, which is not installed: pip install ".*\[app\]"'
    ):
        launch()
