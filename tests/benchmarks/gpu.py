"""Everything that a GPU has to show, in at most six minutes: tests, speed, memory and the kernel; writes one JSON file.

python -m tests.benchmarks.gpu [--out gpu.json]     # run all parts; each is stored as soon as it is finished
python -m tests.benchmarks.gpu --table gpu.json     # print the tables of docs/performance.md
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

from captum_astro import AttentionRollout, TransformerMM, VTranM
from captum_astro.functional.attention import Attention, Softmax
from captum_astro.functional.fused import SWITCH
from captum_astro.functional.transformer_mm import transformer_mm_update
from tests.benchmarks.direct import floor

ROOT = Path(__file__).parents[2]
SECONDS = 330  # in which the last part must begin and end; starting Python takes the rest of the six minutes
# dense products in half precision, FLOP/s, and memory, B/s, from the makers' data sheets
PEAKS = {"H100 PCIe": (756e12, 2.0e12), "H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "A100": (312e12, 2.0e12)}
FLOOR = "forward + input-backward"
METHODS = {"VTranM": VTranM, "TransformerMM": TransformerMM, "AttentionRollout": AttentionRollout}
SIZES = ((224, 32), (1024, 8))  # pixels a side, images a batch


def tests(left: float) -> dict[str, Any]:
    """The outcome of the tests of `tests/gpu`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        words = [sys.executable, "-m", "pytest", "-q", "tests/gpu", f"--junit-xml={report}", "--maxfail=40"]
        words += ["-n", str(min(8, os.cpu_count() or 1))]  # most of the time is spent in compiling
        try:
            done = subprocess.run(words, cwd=ROOT, timeout=min(left, 150), capture_output=True, text=True, check=False)
        except subprocess.TimeoutExpired as error:
            return {"error": f"stopped after {error.timeout:.0f} s", "end": str(error.stdout)[-2000:]}
        if not report.exists():
            return {"error": (done.stdout + done.stderr)[-2000:]}
        suite = ET.parse(report).getroot()[0]
    failed = [
        f"{case.get('classname')}::{case.get('name')}: {(found.get('message') or '')[:300]}"
        for case in suite
        for found in case
        if found.tag in ("failure", "error")
    ]
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    return {**counts, "failed": failed, "end": done.stdout[-500:]}


def measured(run: Callable[[], object], rounds: int) -> dict[str, float]:
    """The median milliseconds of some rounds after one that warms up, and the highest memory in MiB."""
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return {"ms": statistics.median(times), "MiB": torch.cuda.max_memory_allocated() / 2**20}


def without_kernel(run: Callable[[], object], rounds: int) -> dict[str, float]:
    """As `measured`, in the chunked form."""
    os.environ[SWITCH] = "0"
    try:
        return measured(run, rounds)
    finally:
        del os.environ[SWITCH]


def speed(left: float) -> dict[str, Any]:
    """Methods on ViT-B/16 in bfloat16 next to the model's own passes, with and without the kernel."""
    found: dict[str, Any] = {}
    for side, batch in SIZES:
        model = timm.create_model("vit_base_patch16_224", img_size=side).eval().requires_grad_(False)
        model, x = model.to("cuda", torch.bfloat16), torch.randn(batch, 3, side, side).to("cuda", torch.bfloat16)
        target, rounds = torch.arange(batch, device="cuda"), 20 if side < 500 else 3
        rows = {FLOOR: measured(partial(floor, model, x, target), rounds)}
        for name, method in METHODS.items():
            explain = method(model)
            run = partial(explain.attribute, x, target=target)
            rows[name] = measured(run, rounds)
            rows[f"{name}, without the kernel"] = without_kernel(run, rounds)
        found[f"{side} x {side}, batch {batch}"] = rows
    return found


def kernel(left: float) -> dict[str, Any]:
    """The kernel alone, for VTranM's and TransformerMM's entries: its arithmetic and its least traffic."""
    card = torch.cuda.get_device_name()
    peak = next((peaks for name, peaks in PEAKS.items() if name in card), None)
    found: dict[str, Any] = {}
    for batch, tokens in ((32, 197), (8, 4097)):
        shape = (batch, 12, tokens, 64)
        q, k, v, g = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
        layer, row = Attention((Softmax(q, k, 64**-0.5),), (1.0,), v), torch.rand(batch, tokens, device="cuda")
        wide = g.float()  # as gradients are recorded
        rounds = 50 if tokens < 500 else 5
        for name, gradient in (("half gradients", g), ("float32 gradients", wide)):
            run = partial(transformer_mm_update, row, layer, gradient)
            seconds = measured(run, rounds)["ms"] / 1000
            # the scores twice, once for the log-sum-exp, and the slopes: three products of n x n x 64
            operations = 3 * 2 * batch * 12 * tokens**2 * 64
            read = sum(x.numel() * x.element_size() for x in (q, k, q, k, v, gradient)) + batch * 12 * tokens * 4
            found[f"{batch} x 12 heads, {tokens} tokens, {name}"] = {
                "ms": 1000 * seconds,
                "chunked ms": without_kernel(run, rounds)["ms"],
                "TFLOP/s": operations / seconds / 1e12,
                "GB/s": read / seconds / 1e9,
                "share of arithmetic": None if peak is None else operations / seconds / peak[0],
                "share of bandwidth": None if peak is None else read / seconds / peak[1],
            }
    return found


def throughput(left: float) -> dict[str, Any]:
    """Images a second of ``bench`` with the bundled model of the scenes, its start left out."""
    seconds = {}
    for images in (20, 120):
        words = [
            "-m",
            "captum_astro",
            "bench",
            "--models",
            "scenes_vit_tiny_patch4_64",
            "--methods",
            "VTranM,RawAttention",
        ]
        with tempfile.TemporaryDirectory() as folder:
            words += [
                "--data",
                "scenes",
                "--limit",
                str(images),
                "--metrics",
                "all",
                "--device",
                "cuda",
                "--out",
                folder,
            ]
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *words], cwd=ROOT, timeout=left, capture_output=True, text=True, check=False
            )
        if done.returncode:
            return {"error": (done.stdout + done.stderr)[-1000:]}
        seconds[images] = time.perf_counter() - start
        left -= seconds[images]
    return {"images / s": 100 / max(1e-9, seconds[120] - seconds[20]), "methods": 2, "metrics": "all"}


def rates(left: float) -> dict[str, Any]:
    """The parts of ``bench`` on ViT-B/16 in bfloat16, and its forward passes next to bare ones, as text."""
    words = [sys.executable, "-m", "tests.benchmarks.bench_bench", "--device", "cuda", "--amp", "bfloat16", "--random"]
    words += ["--model", "vit_base_patch16_224", "--limit", "10", "--batch-size", "64"]
    done = subprocess.run(words, cwd=ROOT, timeout=min(left, 100), capture_output=True, text=True, check=False)
    return {"text": done.stdout} if done.returncode == 0 else {"error": done.stderr[-1000:]}


PARTS: dict[str, Callable[[float], dict[str, Any]]] = {
    "kernel": kernel,
    "speed": speed,
    "tests": tests,
    "bench": throughput,
    "rates": rates,
}


def table(found: dict[str, Any]) -> str:
    """The Markdown tables of a result."""
    lines = [f"{found['card']}, torch {found['torch']}, bfloat16, ViT-B/16, medians:"]
    for size, rows in found.get("speed", {}).items():
        lines += ["", size, "", f"| | ms | over {FLOOR} | peak MiB |", "|---|---|---|---|"]
        own = rows[FLOOR]["ms"]
        lines += [f"| {name} | {x['ms']:.1f} | {x['ms'] / own:.2f} | {x['MiB']:.0f} |" for name, x in rows.items()]
    kernels = found.get("kernel", {})
    for number, (name, row) in enumerate(kernels.items()):
        if not number:
            lines += ["", f"| kernel | {' | '.join(row)} |", "|---" * (len(row) + 1) + "|"]
        cells = ("" if x is None else f"{x:.1%}" if "share" in key else f"{x:.2f}" for key, x in row.items())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if "images / s" in found.get("bench", {}):
        lines += ["", f"`bench` with two methods and all metrics: {found['bench']['images / s']:.1f} images a second."]
    if "text" in found.get("rates", {}):
        lines += ["", found["rates"]["text"]]
    return "\n".join(lines)


def main() -> None:
    """Run the parts, or print the tables of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text())))
        return
    if not torch.cuda.is_available():
        parser.exit(message="This machine has no CUDA GPU: nothing was run.\n")
    start = time.monotonic()
    found: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    for part in args.parts:
        left = SECONDS - (time.monotonic() - start)
        try:
            found[part] = PARTS[part](left) if left > 10 else {"error": "no time was left"}
        except Exception as error:  # the other parts can still show something
            found[part] = {"error": repr(error)[:1000]}
        args.out.write_text(json.dumps(found, indent=1))
        print(f"{part}: {json.dumps(found[part])[:600]}", flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
