from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from captum_astro.app.intake import Upload, checked_name, files_of, from_folder, inside, opened, receive
from captum_astro.app.settings import Settings
from captum_astro.data.image_error import ImageError
from tests.app.serving import PNG, png


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own" / "a1b2").mkdir(parents=True)
    return tmp_path / "own"


def _uploaded(own: Path, name: str = "cat.png", data: bytes | None = None) -> Path:
    file = own / "a1b2" / name
    file.write_bytes(PNG if data is None else data)
    return file


def test_an_upload_is_read_into_memory_and_is_gone_from_the_disk(own: Path) -> None:
    file = _uploaded(own)
    upload = receive(file, own, Settings())
    assert upload == ("cat.png", PNG)
    assert opened(upload, Settings()).size == (6, 4)
    assert not file.exists()


@pytest.mark.parametrize(
    ("name", "data", "settings", "message"),
    [
        ("cat.png", b"\0" * 31, Settings(upload=30), r"cat\.png: more than .* MiB\. Save the image smaller"),
        ("cat.png", b"<svg onload=alert(1)>", Settings(), r"cat\.png: not an image of a known format"),
        ("cat.png", PNG[:50], Settings(), r"cat\.png: the image is damaged"),
        ("cat.png", png((5, 5)), Settings(pixels=24), r"cat\.png: more than 24 pixels"),
        ("a\u202egnp.exe", None, Settings(), r"'a\\u202egnp\.exe' is no name for an image: rename the file"),
        ("a\x1b[31m.png", None, Settings(), r"'a\\x1b\[31m\.png' is no name"),
        ("a\nb.png", None, Settings(), r"'a\\nb\.png' is no name"),
        (".bashrc", None, Settings(), r"'\.bashrc' is no name"),
        ("x" * 201, None, Settings(), r"'xxxxxxxxxxxxxxxxxxxx\.\.\.' is no name"),
    ],
    ids=["bytes", "no image", "damaged", "pixels", "reversed", "escape", "line end", "hidden", "long"],
)
def test_an_upload_that_is_refused_is_gone_too(own: Path, name: str, data: bytes | None, settings, message) -> None:
    file = _uploaded(own, name, data)
    with pytest.raises(ValueError, match=message):
        receive(file, own, settings)
    assert not file.exists()


def test_nothing_outside_the_folder_of_uploads_is_read_or_removed(own: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    (own / "link.png").symlink_to(secret)
    for path in (secret, own / ".." / "secret.png", own / "link.png", own, own / "a1b2", Path("/dev/zero")):
        with pytest.raises(ValueError, match="was not uploaded"):
            receive(path, own, Settings())
    for path in (own / "nothing.png", Path("a\0b")):
        with pytest.raises(ValueError, match="did not arrive"):
            receive(path, own, Settings())
    assert secret.exists()


@pytest.mark.parametrize("name", ["", "a/b.png", "a\\b.png", "..", "a\tb"])
def test_names_of_several_parts(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for an image"):
        checked_name(name)


def test_only_files_of_the_folder_are_offered_and_read(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name in ("b.png", "a.png", "more/c.png", "notes.txt", "weights.safetensors"):
        (folder / name).write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "pipe.png")
    settings = Settings(folder)
    assert files_of(folder) == (["a.png", "b.png", "link.png", "pipe.png"], ["weights.safetensors"])
    assert files_of(None) == ([], [])
    assert from_folder("more/c.png", settings) == ("more/c.png", PNG)
    for name in ("../secret.png", "link.png", "/etc/passwd", "pipe.png", "more", "", "none.png", "a\0.png"):
        with pytest.raises(ValueError, match=r"is no file of the app's folder\. Choose one of the list"):
            inside(name, folder)
    with pytest.raises(ValueError, match="drop it on the page, or start the app with a folder"):
        inside("a.png", None)
    with pytest.raises(ImageError, match=r"a\.png: more than .* MiB"):
        from_folder("a.png", Settings(folder, upload=10))


def test_a_photograph_is_upright() -> None:
    held, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (6, 4)).save(held, "JPEG", exif=exif)
    assert opened(Upload("a.jpg", held.getvalue()), Settings()).size == (4, 6)
