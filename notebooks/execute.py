"""Execute the notebooks from top to bottom, and write them so that their diffs show only what changed.

    python notebooks/execute.py                      # all of them, in place
    python notebooks/execute.py --out FOLDER         # into a folder: what CI does
    python notebooks/execute.py astromorphic         # one

Needs ``pip install ".[notebooks]"``. A notebook runs in its own folder, on one thread and without a network, so that
results are bitwise reproducible on the same machine; as many run at a time as there are cores. An error ends the run
with the cell and the traceback.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
ALONE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, where ipywidgets is not installed
}
FIGURES = "--InlineBackend.print_figure_kwargs={'dpi': 72, 'bbox_inches': 'tight'}"
COLOURS = 4096  # an image with more colours is a photograph, not a drawing
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def execute(notebook: Path, timeout: int = 600) -> Any:
    """The notebook with new outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    found = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        found,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=[FIGURES],
        resources={"metadata": {"path": str(notebook.parent)}},
    )
    return client.execute(env={**os.environ, **ALONE})


def clean(notebook: Any) -> Any:
    """Remove what differs between runs, and shrink the images."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
            data = output.get("data", {})
            if len(data) > 1:
                data.pop("text/plain", None)  # an object's repr, often with its memory address
            if "image/png" in data:
                data.update(small(data.pop("image/png")))
    return notebook


def small(png: str) -> dict[str, str]:
    """An image in base64, by its type: a drawing as a PNG with a palette, photographs and maps as JPEG."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    whole = io.BytesIO()
    drawing = picture.getcolors(COLOURS) is not None
    if drawing:
        picture.quantize(256, dither=Image.Dither.NONE).save(whole, "PNG", optimize=True)
    else:
        picture.save(whole, "JPEG", quality=88, subsampling=0, optimize=True)
    return {f"image/{'png' if drawing else 'jpeg'}": base64.b64encode(whole.getvalue()).decode() + "\n"}


def write(notebook: Path, out: Path) -> str:
    """Execute a notebook into a folder; its time and size in words."""
    started = time.perf_counter()
    nbformat.write(clean(execute(notebook)), out / notebook.name)
    size = (out / notebook.name).stat().st_size
    return f"{notebook.name}: {time.perf_counter() - started:.0f} s, {size / 1000:.0f} kB"


def main() -> None:
    """Execute the given notebooks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks without .ipynb; by default all")
    parser.add_argument("--out", type=Path, default=HERE, help="output folder; by default in place")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    notebooks = [HERE / f"{name}.ipynb" for name in args.names] or sorted(HERE.glob("*.ipynb"))
    with ProcessPoolExecutor() as pool:
        for said in pool.map(partial(write, out=args.out), notebooks):
            print(said, flush=True)


if __name__ == "__main__":
    main()
