"""Test the core without any extra: the core works, and anything that needs an extra names it.

Run by ``.ci/run core`` in a virtual environment that has only ``pip install .``. With ``--hide`` the extras' libraries
are hidden instead, so that it can be tried where they are installed.
"""

import contextlib
import importlib
import importlib.abc
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LIBRARIES = ("pandas", "pyarrow", "quantus", "tokenizers", "h5py", "google_crc32c", "gradio", "open_clip")
# torch brings jinja2, scikit-learn scipy; methods import neither, and only the scenes read scikit-learn's digits
UNUSED = ("jinja2", "scipy", "sklearn")


class Hiding(importlib.abc.MetaPathFinder):
    """An import finder that hides the extras' libraries."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        """Raise for a hidden library, otherwise find nothing."""
        hidden = name.split(".")[0] in LIBRARIES
        return None if hidden else self.finder.find_spec(name, path, target)


def command(*words: object) -> tuple[int, str]:
    """The exit status of a command, and its output."""
    from captum_astro import cli

    said, code, sys.argv = io.StringIO(), 0, ["captum-astro", *map(str, words)]
    with contextlib.redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, said.getvalue()


def refused(module: str) -> str:
    """The error message when a module that needs an extra is imported; empty if it works."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return ""


def main() -> None:
    """Run all checks in a temporary folder."""
    hide = "--hide" in sys.argv
    if hide:
        sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
    else:
        there = [name for name in LIBRARIES if importlib.util.find_spec(name)]
        assert not there, f"the core brings {there}"

    from captum_astro import VTranM

    loaded = {*LIBRARIES, *UNUSED} & {name.split(".")[0] for name in sys.modules}
    assert not loaded, f"VTranM imports {loaded}"

    import timm
    import torch

    from captum_astro import ViTA, explainers, viz

    model = timm.create_model("scenes_vit_tiny_patch4_64", pretrained=True).eval()
    images = torch.rand(2, 3, 64, 64)
    for explainer in explainers():
        found = explainer.method(model).attribute(images, target=[1, 2])
        assert found.shape == images.shape, explainer.name
        assert found.isfinite().all(), explainer.name
    viz.compare(images, {"VTranM": VTranM(ViTA(model)).attribute(images, target=1)}, ["a", "b"])

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        from torchvision.transforms.functional import to_pil_image

        from captum_astro.data.scenes import Scenes

        to_pil_image(Scenes("test", 1)[0].image).save("scene.png")
        bundled = ("--model", "scenes_vit_tiny_patch4_64")
        for words in (
            ("methods",),
            ("check", "test_vit"),
            ("demo", "--scenes", 4, "--out", "demo.png"),
            ("explain", "scene.png", *bundled, "--method", "all", "--out", "maps"),
            ("explain", "scene.png", *bundled, "--vita", "k=4,tau=2", "--out", "vita"),
        ):
            code, said = command(*words)
            assert code == 0, (words, said)
        assert Path("demo.png").exists()
        assert len(list(Path("maps").glob("*.npy"))) == len([one for one in explainers() if not one.on_request])
        for words in (
            ("bench", *(word.replace("--model", "--models") for word in bundled), "--data", "scenes", "--out", "bench"),
            ("report", "bench"),
            ("vita", "search", "--data", "scenes", *bundled, "--out", "search"),
        ):
            code, said = command(*words)
            lines = said.strip().splitlines()
            assert (code, len(lines)) == (2, 1), (words, code, said)
            assert 'not installed: pip install "captum-astro[bench]"' in lines[0], said
        code, said = command("app", "--no-browser")
        assert code == 2, (code, said)
        assert 'The app needs gradio, which is not installed: pip install "captum-astro[app]"' in said, said
        for name in ("train", "test"):
            Path(f"{name}.parquet").write_bytes(b"")
        code, said = command("train", "imdb", "--data", ".", "--out", "imdb")
        assert code == 2, (code, said)
        assert "pyarrow, which is not installed" in said, said
        assert 'pip install "captum-astro[train]"' in said, said
        os.chdir("/")

    for library in ("captum_astro.evaluation.analysis", "captum_astro.metrics.quantus"):
        said = refused(library)
        assert 'pip install "captum-astro[bench]"' in said, (library, said)
    subprocess.run([sys.executable, "-m", "captum_astro.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
    print("the core works without any extra")


main()
