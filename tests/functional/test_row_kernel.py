"""The kernel of a row, without a GPU: in Triton's interpreter, compiled for several GPUs, and where it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from captum_astro.functional import fused, row_kernel
from captum_astro.functional.attention import Attention, Given, Softmax
from tests.functional.interpreted_rows import CASES

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = 99 << 10  # of one block on the smallest supported GPU, in bytes


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    pytest.importorskip("triton", minversion=fused.TRITON)
    # Triton decides at its first import
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.functional.interpreted_rows"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_is_the_chunked_form(case: str, errors: dict[str, float]) -> None:
    assert errors[case] <= 1e-6  # of half precision, too: both forms sum in float32


def test_nothing_gives_nothing() -> None:
    pytest.importorskip("triton", minversion=fused.TRITON)
    for batch, queries, keys in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
        part = Softmax(torch.rand(batch, 1, queries, 8), torch.rand(batch, 1, keys, 8), 1.0)
        found = row_kernel.head_rows(torch.rand(batch, queries), part, "attention")
        assert torch.equal(found, torch.zeros(batch, 1, keys))


class Compiled:
    """Stands for a kernel: compiles it for a GPU with the arguments of each launch, which it does not run."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel, self.capability, self.shared = kernel, capability, list[int]()

    def __getitem__(self, grid: tuple[int]) -> Any:
        return self._compile

    def _compile(self, *args: Any, num_stages: int, num_warps: int, **constants: Any) -> None:
        from triton import compiler
        from triton.backends.compiler import GPUTarget

        given = dict(zip(self.kernel.arg_names, args, strict=False)) | constants
        signature = {
            parameter.name: _type(given[parameter.name], parameter.is_constexpr, parameter.do_not_specialize)
            for parameter in self.kernel.params
        }
        fixed = {(self.kernel.arg_names.index(n),): given[n] for n, kind in signature.items() if kind == "constexpr"}
        source = compiler.ASTSource(self.kernel, signature, fixed)
        target = GPUTarget("cuda", self.capability, 32)
        found = compiler.compile(source, target=target, options={"num_stages": num_stages, "num_warps": num_warps})
        self.shared.append(found.metadata.shared)


def _type(value: Any, constant: bool, general: bool) -> str:
    """As Triton decides at a launch."""
    if constant or value is None or (not general and isinstance(value, int) and value == 1):
        return "constexpr"
    if isinstance(value, torch.Tensor):
        names = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.uint8: "*u8"}
        return names[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


@pytest.mark.parametrize(
    ("capability", "dtype", "entry", "heads", "width", "options"),
    [
        (80, torch.float32, "flow", 1, 64, {}),
        (90, torch.bfloat16, "flow", 2, 64, {}),
        (90, torch.float16, "rise", 2, 256, {"causal": True}),
        (90, torch.float32, "flow", 2, 256, {"bias": torch.zeros(2, 300)}),
        (80, torch.bfloat16, "square", 1, 128, {"bias": torch.zeros(1, 300, dtype=torch.bool)}),
        (100, torch.float16, "attention", 1, 20, {"bias": torch.zeros(2, 300).half()}),
    ],
)
def test_it_compiles(
    capability: int, dtype: torch.dtype, entry: str, heads: int, width: int, options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """For GPUs that need not be there. What is valid for the interpreter may be none for the compiler."""
    triton = pytest.importorskip("triton", minversion=fused.TRITON)
    if not isinstance(row_kernel._columns, triton.JITFunction):
        pytest.skip("TRITON_INTERPRET is set")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = [Compiled(getattr(row_kernel, name), capability) for name in ("_log_sum_exp", "_columns")]
    monkeypatch.setattr(row_kernel, "_log_sum_exp", kernels[0])
    monkeypatch.setattr(row_kernel, "_columns", kernels[1])
    q, k, v = (torch.rand(1, heads, n, width).to(dtype) for n in (2, 300, 300))
    row_kernel.head_rows(torch.rand(1, 2), Softmax(q, k, 1.0, **options), entry, v, q.float())
    assert all(0 < kernel.shared[0] <= SHARED_MEMORY for kernel in kernels)


@pytest.fixture
def layer() -> Any:
    """A layer on a GPU that is only made out to be there."""
    with FakeTensorMode():
        q, k, v = (torch.empty(2, 3, 4, 8, device="cuda", dtype=torch.float16) for _ in range(3))
        yield Attention((Softmax(q, k, 1.0),), (1,), v)


CHANGED = {
    "on the CPU": lambda layer: replace(layer, maps=(replace(layer.maps[0], query=torch.empty(2, 3, 4, 8)),)),
    "in double precision": lambda layer: replace(layer, value=layer.value.double()),
    "of differential attention": lambda layer: replace(layer, maps=layer.maps * 2, weights=(1.0, -0.2)),
    "weighted": lambda layer: replace(layer, weights=(0.5,)),
    "of wide heads": lambda layer: replace(layer, value=torch.empty(2, 3, 4, 257, device="cuda")),
    "of other heads": lambda layer: replace(layer, value=torch.empty(2, 1, 4, 8, device="cuda")),
    "a stored map": lambda layer: replace(layer, maps=(Given(torch.empty(2, 3, 4, 4, device="cuda")),)),
}


def _tried(layer: Attention, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel is called."""
    monkeypatch.setattr(fused, "_runs", lambda _: True)
    monkeypatch.setattr(row_kernel, "head_rows", lambda row, *_: row)
    return fused.fused_rows(torch.empty(2, 4, device="cuda"), layer, "attention") is not None


def test_a_layer_on_a_gpu_takes_the_kernel(layer: Attention, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _tried(layer, monkeypatch)
    monkeypatch.setenv(fused.SWITCH, "0")
    assert not _tried(layer, monkeypatch)


@pytest.mark.parametrize("change", CHANGED)
def test_other_layers_do_not(layer: Attention, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _tried(CHANGED[change](layer), monkeypatch)


def test_without_triton_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    fused._runs.cache_clear()
    with caplog.at_level("DEBUG", "captum_astro"):
        assert not fused._runs(torch.device("cuda"))
    fused._runs.cache_clear()
    assert "triton" in caplog.text


@pytest.mark.parametrize(
    ("version", "capability", "runs"), [("3.8.0", (8, 0), True), ("3.10.1", (10, 0), True), ("3.7.1", (9, 0), False),
    ("3.8.0", (7, 5), False)],
)  # fmt: skip
def test_older_versions_and_cards_have_none(
    version: str, capability: tuple[int, int], runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__=version))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    fused._runs.cache_clear()
    assert fused._runs(torch.device("cuda")) is runs
    fused._runs.cache_clear()
