"""Compare the methods of this package with each other and with other packages: time, memory, batches, side effects.

pip install grad-cam torchcam hilrp lxt legrad-torch pnpxai
git clone https://github.com/hila-chefer/Transformer-Explainability
PYTHONPATH=Transformer-Explainability:. python -m tests.benchmarks.bench_speed
    [--model vit_base_patch16_224] [--size 512] [--batch 8] [--rounds 5] [--threads 1] [--only VTranM hilrp] [--brief]

Every candidate has a process of its own, because some patch classes for good; the processes take turns, so that what
else the machine does meets all of them. Times are relative to the model's own passes in the same round: the median,
and the lowest and the highest in brackets; and the least time relative to their least, which says more where other
programs run. Memory is what one call needs beyond the built model, in a fresh process.
A candidate that refuses a batch, or changes its result, explains the images one by one; `--brief` does not look for
that, nor for what has changed in the model. `all`, `ours` and `peers` are what `--only` knows besides parts of names.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from captum_astro.processes import end_with_parent
from tests.benchmarks.peers import BASE, PEERS, Built, Explain, Setting


class Seen(NamedTuple):
    """What a candidate does with a batch of two images, and what it leaves of the model."""

    batch: str
    left: str


class Candidate:
    """One candidate, in the process where it is built."""

    def __init__(self, name: str, setting: Setting, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model, self.explain = _built(name, setting)
        self.size, self.together = setting.size, True

    def seen(self) -> Seen:
        """Whether a batch gives what single images do, and what has changed in the model."""
        x, targets = images(2, self.size)
        before, gradient = state(self.model), slope(self.model, x)
        getattr(self.explain, "prepare", lambda: None)()
        singles = [torch.as_tensor(self.explain(x[i : i + 1], targets[i : i + 1])).detach() for i in range(2)]
        left = [what for what, value in state(self.model).items() if not same(value, before[what])]
        left += [] if torch.allclose(slope(self.model, x), gradient, rtol=1e-3, atol=0) else ["its gradients"]
        try:
            batch = torch.as_tensor(self.explain(x, targets)).detach().flatten(1)
            pairs = zip(batch, (single.flatten() for single in singles), strict=True)
            error = max(float((one - other).norm() / other.norm()) for one, other in pairs)
            self.together, answer = error < 1e-3, "yes" if error < 1e-3 else f"no: {error:.0%} off"
        except Exception as refusal:
            self.together, answer = False, f"refused: {type(refusal).__name__}"
        return Seen(answer, ", ".join(left) or "unchanged")

    def used(self) -> Seen:
        """Call it once with one image."""
        getattr(self.explain, "prepare", lambda: None)()
        self.explain(*images(1, self.size))
        return Seen("", "")

    def seconds(self, batch: int) -> float:
        """Of one call with a batch."""
        x, targets = images(batch, self.size)
        start = time.perf_counter()
        explained(self.explain, x, targets, self.together)
        return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=Setting().model)
    parser.add_argument("--size", type=int, default=Setting().size)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=["all"], help="parts of candidates' names")
    parser.add_argument("--brief", action="store_true", help="time and memory only")
    args = parser.parse_args()
    setting, names = Setting(args.model, args.size), chosen(args.only)
    processes = {name: ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) for name in names}
    found, times = dict[str, Any](), dict[str, list[float]]()
    try:
        for name, process in processes.items():
            found[name] = answer(process.submit(begin, name, setting, args.threads, args.brief))
            print(name, found[name], file=sys.stderr, flush=True)
            if isinstance(found[name], Seen):
                times[name] = []
        for _ in range(args.rounds):
            for name, measured in times.items():
                measured.append(processes[name].submit(timed, args.batch).result())
    finally:
        for process in processes.values():
            process.shutdown()
    print(
        f"{args.model}, {args.size} x {args.size}, batch {args.batch}, {args.rounds} rounds, {args.threads} threads\n"
    )
    print("| candidate | ms | over forward + backward | least | MiB | batch as single images | the model afterwards |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        if name not in times:
            print(f"| {name} | {found[name]} |")
            continue
        ratios = [a / b for a, b in zip(times[name], times[BASE], strict=True)]
        over = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as fresh:
            together = found[name].batch in ("yes", "")
            need = answer(fresh.submit(memory, name, setting, args.threads, args.batch, together))
        need = f"{need / 2**20:.0f}" if isinstance(need, int) else need
        ms, least = 1000 * statistics.median(times[name]), min(times[name]) / min(times[BASE])
        print(
            f"| {name} | {ms:.0f} | {over} | {least:.2f} | {need} | {found[name].batch} | {found[name].left} |",
            flush=True,
        )


def chosen(parts: list[str]) -> list[str]:
    """The names that are meant, after that of the model's own passes."""
    groups = {"all": [""], "ours": ["captum_astro", "written", "forward"]}
    wanted = [text for part in parts for text in groups.get(part, [part])]
    peers = [name for name in PEERS if "peers" in parts and not any(text in name for text in groups["ours"])]
    return [name for name in PEERS if name == BASE or name in peers or any(text in name for text in wanted)]


def answer(question: Future[Any]) -> Any:
    """What a process answers, or its error in words."""
    try:
        return question.result()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"


_here: list[Candidate] = []


def begin(name: str, setting: Setting, threads: int, brief: bool) -> Seen:
    """Build a candidate in this process."""
    _here.append(Candidate(name, setting, threads))
    return _here[0].used() if brief else _here[0].seen()


def timed(batch: int) -> float:
    """The seconds of one call of the candidate of this process."""
    return _here[0].seconds(batch)


def memory(name: str, setting: Setting, threads: int, batch: int, together: bool) -> int:
    """The bytes that the second call in this process needs beyond what is there before it; Linux only."""
    torch.set_num_threads(threads)
    _, explain = _built(name, setting)
    getattr(explain, "prepare", lambda: None)()
    explain(*images(1, setting.size))  # what is loaded at the first call stays
    x, targets = images(batch, setting.size)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed does not count
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _status("VmRSS")
    explained(explain, x, targets, together)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _built(name: str, setting: Setting) -> Built:
    return PEERS[name](setting)


def explained(explain: Explain, x: torch.Tensor, targets: list[int], together: bool) -> None:
    """Explain a batch, all at once or one by one."""
    if together:
        explain(x, targets)
        return
    for i in range(len(x)):
        explain(x[i : i + 1], targets[i : i + 1])


def images(batch: int, size: int) -> tuple[torch.Tensor, list[int]]:
    """Images of noise, and a class for each."""
    x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    return x, [(281 + 7 * i) % 1000 for i in range(batch)]


def state(model: nn.Module) -> dict[str, Any]:
    """What belongs to the user: weights, `.grad`, which parameters train, hooks."""
    parameters = list(model.parameters())
    return {
        "weights": torch.cat([p.detach().flatten() for p in parameters]),
        ".grad": torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]),
        "requires_grad": [p.requires_grad for p in parameters],
        "hooks": sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()),
    }


def slope(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The plain gradient of the output: it changes when a class has been patched."""
    image = x[:1].clone().requires_grad_(True)
    with torch.enable_grad():
        output = model(image)
        output = output[0] if isinstance(output, tuple) else output  # the features of an image, of open_clip's models
        return torch.autograd.grad(output[0, 7], image)[0]


def same(one: Any, other: Any) -> bool:
    """Equal values."""
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


if __name__ == "__main__":
    main()
