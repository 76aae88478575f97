from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from captum_astro.models.astromorphic_text import AstromorphicTextClassifier
from captum_astro.models.astromorphic_vit import AstromorphicVisionTransformer
from captum_astro.storage import write_whole
from captum_astro.training.batches import Images, Texts, TokenStream, mirrored, shifted
from captum_astro.training.checkpoint import load, random_state, save, seed_everything, set_random_state
from captum_astro.training.curve import Row, best, epochs_to, plot, read_csv, write_csv
from captum_astro.training.fit import BEST, CHECKPOINT, CURVE, Plan, fit
from captum_astro.training.optimiser import adamw, undecayed, warm_up_cosine
from captum_astro.training.scores import accuracy, classification
from captum_astro.training.task import Task
from captum_astro.training.weights import load_weights, save_weights
from tests.training.making import cifar_pixels


class Stopped(Exception):
    """Simulates a kill."""


def _run(folder: Path, steps: int = 9, stop_at: int | None = None, every: int = 2, lr: float = 1e-3):
    """A short training with everything random: augmentation, dropout, stochastic depth, NumPy and Python."""
    seed_everything(3)
    pixels, labels = cifar_pixels(22)
    images, classes = torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor(labels)
    model = AstromorphicVisionTransformer(
        img_size=32, patch_size=8, num_classes=10, embed_dim=16, depth=2, num_heads=2, stem_width=4,
        proj_drop_rate=0.2, drop_path_rate=0.2, class_token=False, global_pool="avg",
    )  # fmt: skip
    source = Images(images, classes, (0.5,) * 3, (0.25,) * 3, augment=True)
    plain = classification(0.1)
    calls = 0

    def loss(model: nn.Module, batch):
        nonlocal calls
        calls += 1
        if stop_at is not None and calls > stop_at:
            raise Stopped
        value, score = plain(model, batch)
        return value * (1 + 0.1 * random.random() + 0.1 * float(np.random.rand())), score  # noqa: NPY002

    optimiser = adamw(model, lr, 0.05)
    seen = Images(images, classes, (0.5,) * 3, (0.25,) * 3)
    task = Task(model, source, loss, lambda m: accuracy(m, seen))
    plan = Plan(steps=steps, batch_size=4, seed=3, evaluate_every=3, checkpoint_every=every)
    rows = fit(task, optimiser, warm_up_cosine(optimiser, steps, 0.2), plan, folder)
    return model, rows


@pytest.mark.parametrize("stops", [[1], [5], [4, 3], [8]])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, stops: list[int]) -> None:
    undisturbed, rows = _run(tmp_path / "one")
    for stop in stops:
        with pytest.raises(Stopped):
            _run(tmp_path / "two", stop_at=stop)
    resumed, others = _run(tmp_path / "two")
    for (name, a), b in zip(undisturbed.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert len(rows) == 3
    for row, other in zip(rows, others, strict=True):
        assert row == Row(**(vars(other) | {"seconds": row.seconds}))
    one, two = (load_file(tmp_path / name / BEST) for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert rows[0].seconds < rows[-1].seconds
    assert others[0].seconds < others[-1].seconds


def test_files(tmp_path: Path) -> None:
    model, rows = _run(tmp_path)
    assert [row.step for row in read_csv(tmp_path / CURVE)] == [3, 6, 9]
    assert (tmp_path / "curve.png").stat().st_size > 5000
    assert rows[-1].epoch == pytest.approx(9 / 5)
    assert not list(tmp_path.glob(".*"))
    save(tmp_path / CHECKPOINT, {**load(tmp_path / CHECKPOINT), "model": {}})
    with pytest.raises(ValueError, match="another run"):
        _run(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"PK no checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint.pt cannot be read .* Delete it to begin again"):
        _run(tmp_path)
    (tmp_path / CURVE).write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not the table of a training run"):
        read_csv(tmp_path / CURVE)
    assert isinstance(model, nn.Module)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1}, {"step": 10**6}, {"step": 1.5}, {"step": "1"}, {"rows": 5}, {"rows": [{"a": 1}]}, {"sums": [1.0]},
        {"sums": torch.zeros(5, dtype=torch.float64)}, {"seconds": "x"}, {"schedule": {}}, {"schedule": 5},
        {"optimiser": 5}, {"optimiser": {"state": {}, "param_groups": []}}, {"model": 5}, {"model": {1: 2}},
    ],
)  # fmt: skip
def test_a_forged_checkpoint_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(Stopped):
        _run(tmp_path, stop_at=5)
    save(tmp_path / CHECKPOINT, {**load(tmp_path / CHECKPOINT), **change})
    with pytest.raises(
        ValueError, match=r"checkpoint.pt is of another run, or damaged .* Delete it to begin again, or"
    ):
        _run(tmp_path)


@pytest.mark.parametrize("change", ["lr", "betas", "shape"])
def test_a_forged_optimiser_is_named(tmp_path: Path, change: str) -> None:
    with pytest.raises(Stopped):
        _run(tmp_path, stop_at=5)
    state = load(tmp_path / CHECKPOINT)
    if change == "shape":
        state["optimiser"]["state"][0]["exp_avg"] = torch.zeros(1)
    else:
        state["optimiser"]["param_groups"][0][change] = "x"
    save(tmp_path / CHECKPOINT, state)
    with pytest.raises(ValueError, match=r"checkpoint.pt is of another run, or damaged \(.*optimiser"):
        _run(tmp_path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"code": Path, "random": random_state()}, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / CHECKPOINT)


def test_non_finite_loss_stops_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not finite before step 3"):
        _run(tmp_path, lr=float("inf"))


def test_random_states() -> None:
    seed_everything(1)
    state = random_state()
    first = torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()  # noqa: NPY002
    set_random_state(state)
    assert first == (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random())  # noqa: NPY002


def test_writes_are_atomic(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")

    def fails(part: Path) -> None:
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(file, fails)
    assert file.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_tied_and_half_weights(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight
            self.register_buffer("count", torch.tensor(7))

    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "w.safetensors", half=True)
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.head.weight, model.embed.weight.half().float())
    assert len(load_file(tmp_path / "w.safetensors")) == 2
    with pytest.raises(ValueError, match=r"does not match Linear: missing: weight, bias; not expected: count, embed.w"):
        load_weights(nn.Linear(2, 2), tmp_path / "w.safetensors")


def test_decayed_parameters() -> None:
    model = AstromorphicTextClassifier(vocabulary=10, num_classes=2, dim=8, num_heads=2, length=6)
    assert undecayed(model) == {"embed.weight", "pos_embed", "blocks.0.attn.positions"}
    free, decayed = adamw(model, 1e-3, 0.1).param_groups
    assert {id(p) for p in decayed["params"]} == {
        id(p) for name, p in model.named_parameters() if p.ndim > 1 and name not in undecayed(model)
    }
    assert free["weight_decay"] == 0


def test_orders() -> None:
    texts = [torch.ones(n, dtype=torch.long) for n in range(1, 24)]
    source = Texts(texts, torch.zeros(23, dtype=torch.long))
    order = source.order(0, 4, seed=1)
    assert [len(batch) for batch in order] == [4] * 5
    assert len(set(torch.cat(order).tolist())) == 20
    assert all(torch.equal(a, b) for a, b in zip(order, source.order(0, 4, seed=1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(order, source.order(1, 4, seed=1), strict=True))
    assert max(int(source.lengths[b].max() - source.lengths[b].min()) for b in order) <= 8
    stream = TokenStream(torch.arange(100), 10)
    for epoch in range(20):
        for batch in stream.order(epoch, 2, 0):
            x, y = stream.batch(batch)
            assert torch.equal(x + 1, y)
    with pytest.raises(ValueError, match="too few for windows of 60"):
        TokenStream(torch.arange(100), 60)


def test_augmentation() -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float).reshape(2, 3, 8, 8) + 1
    torch.manual_seed(0)
    places = set()
    for _ in range(50):
        moved = shifted(images, 2)
        rows, columns = (moved[0, 0] > 0).nonzero().T
        inside = moved[0, 0][moved[0, 0] > 0].reshape(len(rows.unique()), -1)
        assert torch.equal(inside.diff(dim=1), torch.ones_like(inside.diff(dim=1)))
        places.add((int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())))
    assert len(places) > 10
    seen = {tuple(mirrored(images)[:, 0, 0, 0].tolist()) for _ in range(50)}
    assert len(seen) == 4


def test_curves(tmp_path: Path) -> None:
    rows = [Row(i, i / 2, 1.0, 0.1, 0.5, v, 1.0) for i, v in enumerate((0.5, 0.8, 0.7, 0.8), 1)]
    assert best("accuracy", rows).step == 2
    assert best("perplexity", rows).step == 1
    assert epochs_to("accuracy", rows, 0.75) == 1.0
    assert epochs_to("accuracy", rows, 0.9) is None
    assert epochs_to("perplexity", rows, 0.5) == 0.5
    write_csv(rows, tmp_path / "c.csv")
    assert read_csv(tmp_path / "c.csv") == rows
    plot({"a": rows, "b": rows}, tmp_path / "c.png", "perplexity", "two")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
