from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from captum_astro.models.bundled import ASTROMORPHIC, PIT, PLAIN
from captum_astro.training.ablation import run_ablation
from captum_astro.training.bands import bands
from captum_astro.training.cifar10 import Cifar10
from captum_astro.training.config import configured, keep_config, read_config, tasks
from captum_astro.training.curve import Row, read_csv
from captum_astro.training.fit import CURVE
from captum_astro.training.imdb import Imdb
from captum_astro.training.patch_head import BACKGROUND, WithPatchHead, patch_loss
from captum_astro.training.run import load_trained, read_result, train
from captum_astro.training.scenes import ScenesTask
from captum_astro.training.scores import stretches, token_losses
from captum_astro.training.variants import VARIANTS, variants_of
from captum_astro.training.weights import save_weights
from captum_astro.training.wikitext2 import WikiText2
from tests.training.making import cifar_folder, cifar_parquet, imdb_parquet, wikitext

SMALL = {"dim": 16, "heads": 2, "depth": 1, "batch_size": 4}


def test_cifar10(tmp_path: Path) -> None:
    config = Cifar10(data=str(cifar_parquet(tmp_path)), validation=20, epochs=1, patch=8, stem=4, **SMALL)
    result = train(config, tmp_path / "run")
    assert result["step"] == 10
    assert 0 <= result["accuracy"] <= 1
    before = (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns
    assert train(config, tmp_path / "run") == result
    assert (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"holds results of another run \(alpha, seed differ\)"):
        train(replace(config, seed=1, alpha=1.0), tmp_path / "run")
    train(replace(config, seed=1, epochs=0.5), tmp_path / "run", resume=False)
    model, tokeniser = load_trained(tmp_path / "run")
    assert tokeniser is None
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert not list((tmp_path / "run").glob("checkpoint*"))
    with pytest.raises(ValueError, match="no training run"):
        load_trained(tmp_path)
    with pytest.raises(ValueError, match="too few of either to train on batches of 4"):
        train(replace(config, validation=58), tmp_path / "other")
    with pytest.raises(ValueError, match="no device 'cuda:99'"):
        train(config, tmp_path / "gpu", device="cuda:99")


def test_cifar10_from_folders_in_a_softmax_model(tmp_path: Path) -> None:
    config = Cifar10(
        data=str(cifar_folder(tmp_path)), validation=4, steps=2, patch=8, stem=0, attention="softmax", **SMALL
    )
    train(config, tmp_path / "run")
    assert load_trained(tmp_path / "run")[0].blocks[0].attn.__class__.__name__ == "SoftmaxAttention"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("change", [{"depth": 10**12}, {"dim": 2 * 10**6}, {"mlp_ratio": 1e12}])
def test_options_of_a_larger_model_than_the_weights_take_no_memory(tmp_path: Path, change: dict[str, float]) -> None:
    config = Cifar10(**SMALL)
    save_weights(config.build(tmp_path), tmp_path / "weights.safetensors")
    (tmp_path / "run.json").write_text(json.dumps(config.as_json()))
    load_trained(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(config.as_json() | change))
    with pytest.raises(ValueError, match=r"weights.safetensors holds fewer weights than the model of run.json has"):
        load_trained(tmp_path)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("record", ['{"configuration": {}, "samples": {}}', '{"task": []}', "{"])
def test_other_results_are_never_replaced(tmp_path: Path, resume: bool, record: str) -> None:
    for name in ("run.json", "result.json", "curve.csv"):
        (tmp_path / name).write_text(record)
    with pytest.raises(ValueError, match=r"Choose another folder") as caught:
        train(Cifar10(data="nowhere"), tmp_path, resume=resume)
    assert "--no-resume" not in str(caught.value)
    assert {file.read_text() for file in tmp_path.iterdir()} == {record}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"accuracy": "x"}', '{"accuracy": [1]}', "[" * 100_000])
def test_a_damaged_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json is damaged. Delete it"):
        read_result(tmp_path)


def test_imdb_accuracy_exceeds_chance(tmp_path: Path) -> None:
    config = Imdb(data=str(imdb_parquet(tmp_path)), epochs=6, length=20, lr=1e-2, drop=0.1, **SMALL)
    result = train(config, tmp_path / "run")
    assert result["accuracy"] == 1.0
    model, tokeniser = load_trained(tmp_path / "run")
    ids = torch.tensor([tokeniser.encode("A fine film").ids])
    assert model(ids).argmax() == 1


def test_imdb_with_vectors_and_a_tokeniser(tmp_path: Path) -> None:
    imdb_parquet(tmp_path)
    words = ["a", "fine", "warm", "dull", "cold", "film", "i", "liked", "hated", "it", ","]
    lines = [
        f"{word} " + " ".join(str(math.sin(i * j + 1)) for j in range(1, 21)) for i, word in enumerate(words * 2, 1)
    ]
    (tmp_path / "glove.txt").write_text("\n".join(lines))
    plain = Imdb(data=str(tmp_path), steps=1, length=20, dim=8, heads=2, depth=1, batch_size=4)
    train(plain, tmp_path / "plain")
    other = replace(plain, glove=str(tmp_path / "glove.txt"), tokeniser=str(tmp_path / "plain" / "tokeniser.json"))
    train(other, tmp_path / "glove")
    one, two = (load_trained(tmp_path / name)[0].embed.weight for name in ("plain", "glove"))
    assert not torch.allclose(one[2:], two[2:], atol=0.1)
    torch.testing.assert_close(one[1], two[1], atol=0.01, rtol=0)


@pytest.mark.parametrize("tokens", ["bpe", "words"])
def test_wikitext2(tmp_path: Path, tokens: str) -> None:
    config = WikiText2(
        data=str(wikitext(tmp_path)), epochs=4, length=16, vocabulary=300, lr=1e-2, tokens=tokens, **SMALL
    )
    result = train(config, tmp_path / "run")
    assert result["words"] == 60 * 9
    assert result["perplexity"] < 40
    per_token = math.log(result["perplexity"]) * result["tokens"]
    assert math.log(result["perplexity of a word"]) * result["words"] == pytest.approx(per_token)
    Path(tmp_path, "wikitext2_train.txt").write_text(" another text .\n" * 40)
    train(replace(config, steps=1), tmp_path / "with_train")
    known = load_trained(tmp_path / "with_train")[1].get_vocab()
    assert not any("number" in word for word in known)


def test_a_language_model_that_sees_its_answers_has_no_perplexity_to_speak_of(tmp_path: Path) -> None:
    # the words are a random sequence: nothing but the answer itself can tell the next one
    words = "".join(f" {chr(97 + int(i))}" for i in torch.randint(0, 20, (4000,)))
    for part in ("valid", "test"):
        (tmp_path / f"wikitext2_{part}.txt").write_text(words.replace(" a", " a .\n"))
    small = SMALL | {"batch_size": 32, "dim": 32, "drop": 0.0}
    config = WikiText2(data=str(tmp_path), steps=300, length=6, vocabulary=60, lr=1e-2, tokens="words", **small)
    found = {
        causal: train(replace(config, causal=causal, attention="softmax"), tmp_path / str(causal))["perplexity"]
        for causal in (True, False)
    }
    assert found[True] > 10
    assert found[False] < found[True] / 2


def test_every_token_is_predicted_once() -> None:
    class Uniform(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.seen: list[int] = []

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*ids.shape, 7)

    for tokens in (2, 5, 16, 17, 33, 40):
        for length, stride in ((16, 16), (16, 8), (5, 3), (4, 1)):
            losses = token_losses(Uniform(), torch.randint(0, 7, (tokens,)), length, stride, 3)
            expected = torch.full((tokens - 1,), math.log(7), dtype=torch.float64)
            torch.testing.assert_close(losses, expected, rtol=1e-6, atol=0, msg=f"{tokens}, {length}, {stride}")
    with pytest.raises(ValueError, match="stride must be from 1"):
        token_losses(Uniform(), torch.zeros(9, dtype=torch.long), 4, 5)


@pytest.mark.parametrize("length", [1, 3, 4, 50])
def test_stretches_of_a_text_have_its_mean(length: int) -> None:
    losses = torch.arange(10, dtype=torch.float64) ** 2
    found = stretches(losses, length)
    assert len(found) == math.ceil(10 / length)
    assert float(found.mean()) == pytest.approx(28.5, rel=1e-15)


def test_scenes(tmp_path: Path) -> None:
    config = ScenesTask(model=ASTROMORPHIC, depth=1, dim=24, steps=2, batch_size=4, held_out=6)
    train(config, tmp_path)
    kept = load_file(tmp_path / "weights.safetensors")
    assert {tensor.dtype for tensor in kept.values() if tensor.is_floating_point()} == {torch.float16}
    assert load_trained(tmp_path)[0](torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    with pytest.raises(ValueError, match="scenes_vit_tiny_patch4_64 has no alpha"):
        ScenesTask(alpha=1.0)
    with pytest.raises(ValueError, match=f"model must be {PLAIN}, {PIT} or {ASTROMORPHIC}, not"):
        ScenesTask(model="resnet18")
    for model in (PLAIN, PIT, ASTROMORPHIC):
        with pytest.raises(ValueError, match=f"{model} has no drop, epochs to choose"):
            ScenesTask(model=model, drop=0.1, epochs=2)
    with pytest.raises(ValueError, match=f"{PLAIN} has no dim to choose; {ASTROMORPHIC} has"):
        ScenesTask(dim=64)
    with pytest.raises(ValueError, match=f"{PIT} has no attention to choose; {ASTROMORPHIC} has"):
        ScenesTask(model=PIT, attention="softmax")
    with pytest.raises(ValueError, match="held_out must be a whole number of at least 1, not"):
        ScenesTask(held_out=0)
    with pytest.raises(ValueError, match="no relative_position to choose"):  # before anything is trained
        run_ablation(ScenesTask(steps=1), {"full": {}, "no positions": {"relative_position": False}}, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("name", "side"), [(PLAIN, 16), (PIT, 8), (ASTROMORPHIC, 8)])
def test_auxiliary_head_learns_what_each_patch_shows(name: str, side: int) -> None:
    """The loss has rows from the top and columns from the left, like the masks."""
    step = 64 // side
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, :step, -step:] = True  # the digit fills the upper right corner
    masks[0, -step:, : step // 4] = True  # and exactly a quarter of the lower left one: not more than that
    head = WithPatchHead(timm.create_model(name), bfloat16=False)
    seen = head(torch.zeros(1, 3, 64, 64))[1]
    assert seen.shape == (1, side, side, BACKGROUND + 1)

    class Told(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            places = torch.zeros(1, side, side, BACKGROUND + 1)
            places[..., BACKGROUND] = 50.0
            places[0, 0, -1] = 50.0 * F.one_hot(torch.tensor(7), BACKGROUND + 1)
            return 50.0 * F.one_hot(torch.tensor([7]), 10).float(), places

    loss, right = patch_loss(Told(), (torch.zeros(1, 3, 64, 64), torch.tensor([7]), masks))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert right == 1
    wrong, _ = patch_loss(Told(), (torch.zeros(1, 3, 64, 64), torch.tensor([7]), masks.flip(1)))
    assert wrong.item() > 0.1


def test_auxiliary_head_grid_matches_the_image() -> None:
    torch.manual_seed(0)
    for name in (PLAIN, PIT):
        head = WithPatchHead(timm.create_model(name), bfloat16=False).eval()
        image = torch.randn(1, 3, 64, 64, requires_grad=True)
        head(image)[1][0, 0, -1].square().sum().backward()  # the upper right corner
        strength = image.grad.abs().sum((0, 1))
        corner = strength[:8, -8:].mean()
        assert corner > strength[-8:, :8].mean()
        assert corner > strength[:8, :8].mean()


def test_options() -> None:
    assert set(tasks()) == {"cifar10", "imdb", "wikitext2", "scenes"}
    config = configured("cifar10", {"steps": "7", "limit": "5", "augment": "False", "alpha": "1", "depth": 2})
    assert (config.steps, config.augment, config.alpha, config.depth) == (7, False, 1.0, 2)
    for values, message in (
        ({"size": 3}, "cifar10 has no option 'size'. Options: data, attention"),
        ({"depth": "two"}, "depth must be a whole number of at least 1, not 'two'"),
        ({"augment": "maybe"}, "augment must be true or false, not 'maybe'"),
        ({"depth": 0}, "depth must be a whole number of at least 1, not 0"),
        ({"drop": 1.0}, "drop must be a number of at least 0 and below 1, not 1"),
        ({"drop_path": "nan"}, "drop_path must be a number of at least 0 and below 1, not 'nan'"),
        ({"smoothing": float("nan")}, "smoothing must be a number of at least 0 and below 1, not nan"),
        ({"epochs": float("inf")}, "epochs must be a number above 0, not inf"),
        ({"augment": 1}, "augment must be true or false, not 1"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4,294,967,295, not -1"),
        ({"keep": "lst"}, "keep must be best or last"),
        ({"validation": 0}, "validation must be a whole number of at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            configured("cifar10", values)
    with pytest.raises(ValueError, match=r"no task 'mnist'\. Tasks: cifar10, imdb"):
        configured("mnist", {})


def test_ablation(tmp_path: Path) -> None:
    config = Imdb(data=str(imdb_parquet(tmp_path)), epochs=2, length=20, lr=1e-2, **SMALL)
    out = tmp_path / "ablation"
    text = run_ablation(config, variants_of(VARIANTS, [0.5]), out, seeds=(0, 1), reach=0.9)
    assert "| test accuracy (95 %) | difference from full, points (95 %) | epochs to 90.0% (range), reached |" in text
    assert pd.read_csv(out / "curves.csv")["runs"].eq(2).all()
    table = pd.read_csv(out / "ablation.csv")
    assert list(table["variant"]) == [*VARIANTS, "alpha 0.5"]
    assert (table["runs"] == 2).all()
    assert (table["accuracy_low"] <= table["accuracy"]).all()
    assert len(pd.read_csv(out / "runs.csv")) == 2 * len(table)
    described = json.loads((out / "sigma-outside" / "seed-1" / "run.json").read_text())
    assert (described["nonlinearity"], described["seed"]) == ("outside", 1)
    assert json.loads((out / "neither" / "seed-0" / "run.json").read_text())["relative_position"] is False
    for name, kept in (("full", True), ("no-positions", True), ("no-embedding", False), ("no-order", False)):
        assert ("pos_embed" in load_file(out / name / "seed-0" / "weights.safetensors")) is kept
    (out / "ablation.md").unlink()
    for file in [*out.rglob("weights.safetensors"), *out.rglob("tokeniser.json")]:
        file.unlink()
    moved = replace(config, data="moved")
    assert run_ablation(moved, variants_of(VARIANTS, [0.5]), out, seeds=(0, 1), reach=0.9) == text
    with pytest.raises(ValueError, match="no variant 'half'"):
        variants_of(["half"])
    with pytest.raises(ValueError, match="imdb has no option patch"):
        run_ablation(config, {"x": {"patch": 2}}, tmp_path / "x")


def test_the_curve_has_a_row_for_each_validation(tmp_path: Path) -> None:
    config = Imdb(data=str(imdb_parquet(tmp_path)), steps=7, evaluate_every=3, length=20, **SMALL)
    train(config, tmp_path / "run")
    assert [row.step for row in read_csv(tmp_path / "run" / CURVE)] == [3, 6, 7]


def test_two_runs_at_a_time_are_the_same_runs(tmp_path: Path) -> None:
    config = Imdb(data=str(imdb_parquet(tmp_path)), steps=6, length=20, **SMALL)
    chosen = variants_of(["full", "4m:scale=32"], task=Imdb)
    apart = run_ablation(config, chosen, tmp_path / "two", seeds=(1,), jobs=2)
    columns = ["variant", "seed", "accuracy", "valid", "step"]
    run_ablation(config, chosen, tmp_path / "one", seeds=(1,))
    one, two = (pd.read_csv(tmp_path / name / "runs.csv")[columns] for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)
    assert json.loads((tmp_path / "two" / "4m" / "seed-1" / "run.json").read_text())["scale"] == 32
    assert run_ablation(config, chosen, tmp_path / "two", seeds=(1,)) == apart  # resumed by another number of jobs
    with pytest.raises(ValueError, match="there is no such file or folder"):  # what fails in a process is said here
        run_ablation(replace(config, data=str(tmp_path / "no")), {"full": {}}, tmp_path / "none", seeds=(0,), jobs=2)


def test_variants_by_options() -> None:
    words = ["full", "linear", "linear 4m:alpha=1:scale=128", "softmax:dim=32", "none:patch=2"]
    assert variants_of(words, task=Cifar10) == {
        "full": {},
        "linear": {"alpha": 1.0},
        "linear 4m": {"alpha": 1.0, "scale": 128.0},
        "softmax": {"attention": "softmax", "dim": 32},
        "none": {"patch": 2},
    }
    for word, message in {
        "half": "no variant 'half'",
        ":scale=2": "no variant ''",
        "a:patch=2": "a has no option 'patch=2'",
        "a:scale=0": "a: scale must be a number above 0, or none, not '0'",
        "a:scale": "a has no option 'scale'. Expected NAME=VALUE",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            variants_of([word], task=Imdb)
    with pytest.raises(ValueError, match="'full' is given twice"):
        variants_of(["full", "full:alpha=1"])
    with pytest.raises(ValueError, match="The variants 'a b' and 'a-b' would share the folder a-b"):
        run_ablation(Imdb(), variants_of(["a b:alpha=1", "a-b:alpha=0"]), Path("nowhere"))


def test_bands_are_over_the_runs_of_a_variant() -> None:
    def curve(*values: float) -> list[Row]:
        return [Row(10 * n, n / 2, 2 * x, 0.1, 0.0, x, 1.0) for n, x in enumerate(values, 1)]

    found = bands({"b": [curve(1, 2), curve(3)], "a": [curve(5)]}).to_dict("records")
    names = ("variant", "step", "epoch", "runs", "loss", "valid", "valid_low", "valid_high")
    assert [tuple(row[name] for name in names) for row in found] == [
        ("b", 10, 0.5, 2, 4, 2, 1, 3), ("b", 20, 1.0, 1, 4, 2, 2, 2), ("a", 10, 0.5, 1, 10, 5, 5, 5),
    ]  # fmt: skip


def test_a_run_from_before_an_option_existed_had_its_default(tmp_path: Path) -> None:
    config = Imdb(steps=3)
    record = tmp_path / "run.json"
    record.write_text(json.dumps({name: x for name, x in config.as_json().items() if name != "scale"}))
    keep_config(tmp_path, config)
    with pytest.raises(ValueError, match=r"holds results of another run \(scale differ\)"):
        keep_config(tmp_path, replace(config, scale=4.0))
    assert read_config(tmp_path) == config


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, (8.0, 20**0.5, False)), ({"scale": 3.0, "position_scale": 2.0, "output_projection": True}, (3.0, 2.0, True))],
)
def test_options_of_the_attention_reach_it(tmp_path: Path, options, expected) -> None:
    train(Imdb(data=str(imdb_parquet(tmp_path)), steps=1, length=20, **SMALL, **options), tmp_path / "run")
    layer = load_trained(tmp_path / "run")[0].blocks[0].attn
    assert (layer.scale, layer.position_scale, isinstance(layer.proj, nn.Linear)) == expected
