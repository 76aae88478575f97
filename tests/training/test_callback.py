from __future__ import annotations

import contextlib
import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from captum_astro import RawAttention
from captum_astro.metrics.alignment import spearman
from captum_astro.training import ExplainCallback
from captum_astro.training.logs import log_of


def _model(**options) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **sizes, proj_drop_rate=0.3, drop_path_rate=0.3, **options)


def _images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.manual_seed(1))


class Run:
    """A run of Weights & Biases, as far as it is used."""

    def __init__(self) -> None:
        self.logged: list[dict] = []

    def log(self, values: dict) -> None:
        self.logged.append(values)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Image=lambda picture: ("drawn", picture.size)))
    return Run()


def _trained(callback: ExplainCallback | None, steps: int = 5) -> tuple[nn.Module, list[float]]:
    """A model after some steps with everything random, and what the generators draw next."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = _model().train()
    model.blocks[0].eval()  # frozen parts stay so
    fired: list[int] = []
    model.norm.register_forward_hook(lambda *_: fired.append(1) if model.training else None)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(steps):
        x, y = torch.rand(4, 3, 32, 32) + random.random(), torch.from_numpy(np.random.randint(0, 5, 4))  # noqa: NPY002
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if callback is not None:
            callback.step(model, step)  # between gradients and the step that uses them
        optimiser.step()
        optimiser.zero_grad()
    assert len(fired) == steps
    assert [module.training for module in (model, model.blocks[0], model.blocks[1])] == [True, False, True]
    return model, [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002


@pytest.mark.parametrize("method", ["VTranM", "AttnLRP", "TokenGradCAM"])
def test_training_with_it_ends_with_the_same_weights(tmp_path: Path, method: str) -> None:
    alone, drawn_alone = _trained(None)
    callback = ExplainCallback(_images(), method, every=2, log_to=tmp_path)
    explained, drawn = _trained(callback)
    assert [step for step, _ in callback.history] == [0, 2, 4]
    assert drawn == drawn_alone
    for (name, one), other in zip(alone.state_dict().items(), explained.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_the_figure_is_the_rank_correlation_with_the_last_drawing(tmp_path: Path) -> None:
    model, images = _model(), _images(3)
    callback = ExplainCallback(images, "RawAttention", every=10, log_to=tmp_path, target=[0, 1, 2])
    maps = []
    for step in (0, 10, 20):
        maps.append(RawAttention(model.eval()).attribute(images, attribute_to="grid")[:, 0])
        moved = callback.step(model.train(), step)
        assert moved == ([] if step == 0 else pytest.approx(spearman(maps[-1], maps[-2]).tolist(), abs=1e-6))
        with torch.no_grad():
            model.blocks[-1].attn.qkv.weight += torch.randn_like(model.blocks[-1].attn.qkv.weight)
    assert all(value < 0.999 for value in moved)
    assert callback.history[-1] == (20, moved)


def test_a_constant_map_has_no_figure(tmp_path: Path) -> None:
    model = _model()
    callback = ExplainCallback(_images(1), "RawAttention", every=1, log_to=tmp_path, target=0)
    callback.step(model, 0)
    with torch.no_grad():
        model.blocks[-1].attn.qkv.weight.fill_(0)
        model.blocks[-1].attn.qkv.bias.fill_(0)
    [moved] = callback.step(model, 1)
    assert math.isnan(moved)


def test_a_diverged_model_is_not_drawn_and_does_not_end_the_training(tmp_path: Path) -> None:
    model = _model()
    callback = ExplainCallback(_images(1), every=1, log_to=tmp_path)
    with torch.no_grad():
        model.head.weight[0, 0] = math.nan
    with pytest.warns(UserWarning, match="Nothing is drawn at step 7: the model's weights are not finite"):
        assert callback.step(model, 7) is None
    assert not list(tmp_path.iterdir())


def test_it_draws_when_it_is_time_and_each_step_once(tmp_path: Path) -> None:
    model = _model()
    callback = ExplainCallback(_images(1), "RawAttention", every=3, log_to=tmp_path)
    drawn = [callback.step(model, step) is not None for step in (0, 0, 1, 2, 3, 3, 4, 6)]
    assert drawn == [True, False, False, False, True, False, False, True]
    assert sorted(file.name for file in tmp_path.glob("*.png")) == [f"step-00000{n}.png" for n in (0, 3, 6)]
    lines = (tmp_path / "figures.csv").read_text().splitlines()
    assert lines == ["step,figure,value", "3,spearman/0,1.0", "6,spearman/0,1.0"]
    with Image.open(tmp_path / "step-000003.png") as picture:
        assert picture.width > 300
        assert np.asarray(picture).std() > 10


def test_weights_and_biases(run: Run) -> None:
    callback = ExplainCallback(_images(), "RawAttention", every=1, log_to=run)
    for step in (0, 1):
        callback.step(_model(), step)
    kind, (width, _) = run.logged[0].pop("explanations")
    assert (kind, width > 300, run.logged[0]) == ("drawn", True, {"explanations/step": 0})
    del run.logged[1]["explanations"]
    assert run.logged[1] == {"explanations/step": 1, "explanations/spearman/0": 1.0, "explanations/spearman/1": 1.0}


def test_tensorboard(tmp_path: Path) -> None:
    board = pytest.importorskip("torch.utils.tensorboard", reason="tensorboard is not installed", exc_type=ImportError)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with board.SummaryWriter(str(tmp_path)) as writer:
        callback = ExplainCallback(_images(), "RawAttention", every=5, log_to=writer)
        for step in range(6):
            callback.step(_model(), step)
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [event.step for event in found.Images("explanations")] == [0, 5]
    assert [(event.step, event.value) for event in found.Scalars("explanations/spearman/1")] == [(5, 1.0)]


LIGHTNING = ["lightning.pytorch", "pytorch_lightning"]


@pytest.mark.parametrize("name", LIGHTNING)
@pytest.mark.parametrize("own", [True, False])
def test_lightning(tmp_path: Path, name: str, own: bool, run: Run) -> None:
    pl = pytest.importorskip(name, reason=f"{name} is not installed")

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.loss, self.net = nn.CrossEntropyLoss(), _model()

        def training_step(self, batch, _):
            return self.loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2)

    class Logger(pl.loggers.logger.DummyLogger):
        experiment = run

    def fitted(callbacks) -> nn.Module:
        module = Classifier()
        torch.manual_seed(0)
        data = torch.utils.data.TensorDataset(torch.rand(8, 3, 32, 32), torch.arange(8) % 5)
        pl.Trainer(
            max_steps=4, accumulate_grad_batches=2, max_epochs=-1, callbacks=callbacks, accelerator="cpu",
            logger=Logger() if own else False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
        ).fit(module, torch.utils.data.DataLoader(data, 2, shuffle=True))  # fmt: skip
        return module

    callback = ExplainCallback(_images(1), "VTranM", every=2, log_to=None if own else tmp_path)
    assert isinstance(callback, pl.Callback)
    explained, alone = fitted([callback]), fitted([])
    assert [step for step, _ in callback.history] == [0, 2, 4]
    assert len(run.logged) == (3 if own else 0)
    assert len(list(tmp_path.glob("*.png"))) == (0 if own else 3)
    for (key, one), other in zip(alone.state_dict().items(), explained.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
    if not own:
        with pytest.raises(ValueError, match="The trainer has no logger: give log_to, such as a folder"):
            fitted([ExplainCallback(_images(1))])


@pytest.mark.parametrize(
    "around",
    [
        contextlib.nullcontext,
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.no_grad,
        torch.inference_mode,
    ],
    ids=["plain", "autocast", "no_grad", "inference_mode"],
)
def test_the_context_makes_no_difference(tmp_path: Path, around) -> None:
    model = _model()
    callback = ExplainCallback(_images(), "VTranM", every=1, log_to=tmp_path, target=3)
    callback.step(model, 0)
    with around():
        assert callback.step(model, 1) == [1.0, 1.0]
    one, other = (np.asarray(Image.open(tmp_path / f"step-00000{number}.png")) for number in (0, 1))
    assert np.array_equal(one, other)


def test_recomputed_layers_are_explained_and_stay_so(tmp_path: Path) -> None:
    model = _model().train()
    model.set_grad_checkpointing(True)
    assert ExplainCallback(_images(), every=1, log_to=tmp_path).step(model, 0) == []
    assert model.grad_checkpointing


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: int) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(_model())
        monkeypatch.setattr(distributed, "get_rank", lambda *_: rank)
        found = ExplainCallback(_images(), every=1, log_to=tmp_path / "out").step(model, 0)
        assert (found, (tmp_path / "out").exists()) == (([], True) if rank == 0 else (None, False))
        model(_images()).sum().backward()  # its own hooks still work
        assert all(parameter.grad is not None for parameter in model.parameters())
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "every must be a number of steps, 1 or more, not 0"),
        ({"every": 2.5}, ValueError, "every must be a number of steps, 1 or more, not 2.5"),
        ({"target": [1, 2, 3]}, ValueError, "target has 3 classes, and there are 2 images"),
        ({"method": "gradcam"}, ValueError, "There is no method 'gradcam'.*TokenGradCAM"),
        ({"log_to": 3}, TypeError, "log_to must be a folder, .*, not int. A folder always works"),
        ({"images": []}, ValueError, "There is no image to explain"),
    ],
)
def test_wrong_arguments(tmp_path: Path, options, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ExplainCallback(**{"images": _images(), "log_to": tmp_path, **options})


def test_a_loop_needs_a_place() -> None:
    with pytest.raises(ValueError, match="log_to is needed in a loop: a folder"):
        ExplainCallback(_images()).step(_model(), 0)
    assert callable(log_of("anywhere"))
