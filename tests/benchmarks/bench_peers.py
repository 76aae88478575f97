"""Compare other packages' explanations of a ViT-S/16 with this one's: time, batches, what is left of the model.

pip install grad-cam torchcam hilrp lxt legrad-torch pnpxai
git clone https://github.com/hila-chefer/Transformer-Explainability
PYTHONPATH=Transformer-Explainability:. python -m tests.benchmarks.bench_peers [--only VTranM hilrp] [--rounds 5]

Every candidate has a process of its own, because some patch classes for good; the processes take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import nn

from tests.benchmarks.peers import PEERS, Built

TARGETS = (281, 7)
_built: list[Built] = []


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of candidates' names")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    base, *others = PEERS
    names = [base, *(name for name in others if any(part in name for part in args.only))]
    processes = {name: ProcessPoolExecutor(1, get_context("spawn")) for name in names}
    try:
        print("| candidate | ms | over forward + backward | batch as single images | the model afterwards |")
        print("|---|---|---|---|---|")
        found = {}
        for name, process in processes.items():
            found[name] = _asked(process, seen, name)
            print(name, found[name], file=sys.stderr, flush=True)
        times: dict[str, list[float]] = {name: [] for name in names if isinstance(found[name], tuple)}
        for _ in range(args.rounds):
            for name, measured in times.items():
                measured.append(processes[name].submit(timed).result())
        for name in names:
            if name not in times:
                print(f"| {name} | {found[name]} |")
                continue
            over = statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))
            batch, left = found[name]
            print(f"| {name} | {1000 * statistics.median(times[name]):.0f} | {over:.2f} | {batch} | {left} |")
    finally:
        for process in processes.values():
            process.shutdown()


def _asked(process: ProcessPoolExecutor, question: Any, name: str) -> Any:
    """The answer, or the error in words."""
    try:
        return process.submit(question, name).result()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"


def seen(name: str) -> tuple[str, str]:
    """Build a candidate in this process; whether a batch gives what single images do, and what changed in the model."""
    torch.set_num_threads(1)
    model, explain = PEERS[name]()
    _built.append((model, explain))
    x = images()
    before = state(model)
    gradient = slope(model, x)
    getattr(explain, "prepare", lambda: None)()
    singles = [torch.as_tensor(explain(x[i : i + 1], TARGETS[i : i + 1])).detach() for i in range(2)]
    left = [what for what, value in state(model).items() if not same(value, before[what])]
    left += [] if torch.allclose(slope(model, x), gradient, rtol=1e-3, atol=0) else ["its gradients"]
    try:
        batch = torch.as_tensor(explain(x, TARGETS)).detach().flatten(1)
        pairs = zip(batch, (single.flatten() for single in singles), strict=True)
        error = max(float((one - other).norm() / other.norm()) for one, other in pairs)
        same_maps = "yes" if error < 1e-3 else f"no: {error:.0%} off"
    except Exception as refusal:
        same_maps = f"refused: {type(refusal).__name__}"
    return same_maps, ", ".join(left) or "unchanged"


def timed() -> float:
    """Seconds of one call with one image."""
    _, explain = _built[0]
    x = images()[:1]
    start = time.perf_counter()
    explain(x, TARGETS[:1])
    return time.perf_counter() - start


def images() -> torch.Tensor:
    """Two images of noise."""
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


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
