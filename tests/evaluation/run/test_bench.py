from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from captum_astro.evaluation.run import bench as module
from captum_astro.evaluation.run.bench import run_bench
from captum_astro.evaluation.run.results import read_run
from captum_astro.evaluation.run.resuming import Earlier
from captum_astro.evaluation.run.rows import ORDER
from captum_astro.evaluation.run.shards import Shard
from captum_astro.metrics.registry import all_metrics
from captum_astro.storage import PART, read_record
from tests.evaluation.making import Listed, config, contents, started


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_rows(tmp_path: Path) -> None:
    seen = []
    outcome = run_bench(config(), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert (outcome.samples, outcome.computed, outcome.missing) == (6, 3, 0)
    assert seen == [(0, 6), (2, 6), (4, 6), (6, 6)]
    found = read_run(tmp_path)
    assert found.finished
    rows = found.rows
    assert rows["error"].isna().all()
    key = list(ORDER)
    assert not rows.duplicated(key).any()
    assert rows[key].equals(rows[key].sort_values(key).reset_index(drop=True))
    of_maps = [m for m, info in all_metrics().items() if not info.of_model and not info.on_request]
    per_method = [(m, e) for m in of_maps for e in ("predicted", "true")]
    per_method.remove(("SaCo", "true"))
    for (_, method), own in rows.groupby(["sample", "method"]):
        pairs = set(zip(own["metric"], own["explained"], strict=True))
        assert pairs == ({("accuracy", "-"), ("object share", "-")} if method == "-" else set(per_method))
    assert set(found.maps["sample"]) == {0, 1, 2}
    assert set(found.maps["method"]) == {"input", "VTranM", "RawAttention", "Random"}
    inputs = found.maps[found.maps["method"] == "input"]
    right = found.rows[found.rows["metric"] == "accuracy"].set_index("sample")["value"]
    assert (inputs["predicted"] == inputs["true"]).tolist() == [bool(right[sample]) for sample in inputs["sample"]]


def test_two_models_of_one_name_two_files(tmp_path: Path) -> None:
    from captum_astro.evaluation.specification import ModelChoice
    from captum_astro.models.loading import load_model

    files = []
    for name in ("b", "a"):
        torch.manual_seed(ord(name))
        torch.save(load_model("bench_vit_nano", pretrained=False).state_dict(), tmp_path / f"{name}.pt")
        files.append(tmp_path / f"{name}.pt")
    made = config("Random", "accuracy,auc", models=tuple(ModelChoice("bench_vit_nano", file) for file in files))
    run_bench(made, tmp_path / "out")
    rows = read_run(tmp_path / "out").rows
    assert rows["model"].unique().tolist() == ["bench_vit_nano@a", "bench_vit_nano@b"]
    assert len(rows) == 2 * 6 * (1 + 4)


def test_chunks_and_shards_do_not_matter(tmp_path: Path) -> None:
    run_bench(config(), tmp_path / "one")
    expected = contents(tmp_path / "one")
    for rank in (1, 2, 0):
        folder = tmp_path / "many"
        if rank == 1:  # the record is the first process's
            module.BenchStore(folder).begin(read_record(tmp_path / "one" / "run.json"))
        run_bench(config(), folder, shard=Shard(rank, 3))
    assert contents(tmp_path / "many") == expected
    # another chunk size: the random maps are the same, and so is all that does not depend on a batch
    run_bench(config("Random", "segmentation", chunk_size=5, crop="none"), tmp_path / "five")
    here, there = (read_run(tmp_path / name).rows for name in ("one", "five"))
    here = here[(here["method"] == "Random") & here["metric"].isin(there["metric"])].reset_index(drop=True)
    assert here["value"].equals(there[there["method"] == "Random"].reset_index(drop=True)["value"])


def test_killed_ten_times(tmp_path: Path) -> None:
    made = config("Random", limit=12, chunk_size=1, examples=12)
    started(tmp_path / "first", config("Random", "saco", limit=1)).join()  # the libraries are imported
    whole = started(tmp_path / "whole", made)
    while whole.is_alive() and not _chunks(tmp_path / "whole"):
        time.sleep(0.002)
    began = time.monotonic()  # starting takes longer than all the rest
    whole.join()
    assert whole.exitcode == 0
    lasts = time.monotonic() - began
    draw, progress = random.Random(0), []
    while len(progress) < 10:  # each time a chunk further at least, and then at any moment of a chunk or two
        process = started(tmp_path / "killed", made)
        while process.is_alive() and _chunks(tmp_path / "killed") < len(progress):
            time.sleep(0.002)
        process.join(draw.uniform(0, lasts / 6))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            progress.append(_chunks(tmp_path / "killed"))
        else:
            assert process.exitcode == 0  # it ended before the blow: once more from the beginning
            assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
            _remove(tmp_path / "killed")
    last = started(tmp_path / "killed", made)
    last.join()
    assert last.exitcode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert any(0 < chunks < 12 for chunks in progress)


def _chunks(folder: Path) -> int:
    return len(list(folder.glob("chunks/rows-*.parquet")))


def test_a_damaged_chunk_is_computed_again(tmp_path: Path) -> None:
    run_bench(config(), tmp_path)
    expected = contents(tmp_path)
    file = tmp_path / "chunks" / "rows-00-000001.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    (tmp_path / "chunks" / f".0123456789abcdef{PART}").write_bytes(b"half")
    (tmp_path / "results.parquet").unlink()
    said: list[str] = []
    assert run_bench(config(), tmp_path, say=said.append).computed == 1
    assert said[0] == f"{file} is damaged. It is computed again."
    assert contents(tmp_path) == expected


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 5}, "configuration.steps"),
        ({"seed": 1}, "models.bench_vit_nano.weights"),
        ({"limit": 5}, "samples.count"),
    ],
)
def test_other_benchmark_in_the_folder_is_rejected(tmp_path: Path, changes, named: str) -> None:
    run_bench(config("Random", "accuracy,auc"), tmp_path)
    expected = contents(tmp_path)
    with pytest.raises(ValueError, match=rf"holds results of another run .*{named}"):
        run_bench(config("Random", "accuracy,auc", **changes), tmp_path)
    assert contents(tmp_path) == expected


def test_other_library_versions_are_rejected(tmp_path: Path, monkeypatch) -> None:
    run_bench(config("Random", "accuracy"), tmp_path)
    monkeypatch.setattr(module, "versions", lambda: {"torch": "0.4"})
    with pytest.raises(ValueError, match=r"versions\.torch"):
        run_bench(config("Random", "accuracy"), tmp_path)


def test_unavailable_metrics_are_skipped_or_rejected(tmp_path: Path, monkeypatch) -> None:
    from captum_astro.data.specs import samples

    bare = [sample._replace(label=None, human=None) for sample in (samples("scenes", 2)[i] for i in range(2))]
    monkeypatch.setattr(module, "samples", lambda spec, limit: Listed(list(bare)))
    lines: list[str] = []
    run_bench(config("Random", limit=None), tmp_path, say=lines.append)
    assert lines == [
        "Left out, as the data has no label: accuracy, positive AUC, negative AUC.",
        "Left out, as the data has no human map: Spearman, Dice, IoU, SSIM.",
    ]
    rows = read_run(tmp_path).rows
    assert set(rows["explained"]) == {"predicted", "-"}
    with pytest.raises(ValueError, match="accuracy: the data has no label"):
        run_bench(config("Random", "accuracy", limit=None), tmp_path / "a", strict=True)
    with pytest.raises(ValueError, match="has no labels"):
        run_bench(config("Random", limit=None, explained="true"), tmp_path / "b")
    monkeypatch.setattr(module, "samples", lambda spec, limit: Listed([]))
    with pytest.raises(ValueError, match="contains no samples"):
        run_bench(config("Random", limit=None), tmp_path / "c")


def test_human_maps_need_the_whole_image(tmp_path: Path) -> None:
    lines: list[str] = []
    run_bench(config("Random", "human,saco", crop="timm", limit=2), tmp_path, say=lines.append)
    assert lines == ["Left out, as human maps are of the whole image (--crop none): Spearman, Dice, IoU, SSIM."]
    assert read_run(tmp_path).config["models"]["bench_vit_nano"]["input"]["crop"] == "timm"


def test_dead_processes(tmp_path: Path) -> None:
    lines: list[str] = []
    outcome = run_bench(config("Random", "saco"), tmp_path, shard=Shard(0, 2, patience=0.1), say=lines.append)
    assert (outcome.computed, outcome.missing) == (2, 1)
    assert lines[-1] == "1 chunks are missing: their processes are gone. Run the same command again to resume."
    assert not read_run(tmp_path).finished
    assert run_bench(config("Random", "saco"), tmp_path).missing == 0
    assert pq.read_table(tmp_path / "results.parquet").num_rows == 6


def test_processes_with_folders_of_their_own(tmp_path: Path) -> None:
    """The first never begins in the second's folder; the second's chunks, copied to the first, are joined there."""
    made, lines = config("Random", "saco"), list[str]()
    run_bench(made, tmp_path / "whole")
    outcome = run_bench(made, tmp_path / "second", shard=Shard(1, 2, patience=0.1))
    assert (outcome.computed, outcome.missing) == (1, 0)
    run_bench(made, tmp_path / "first", shard=Shard(0, 2, patience=0.1), say=lines.append)
    assert lines[0] == (
        "Waiting for 1 chunks of the other processes. If they write elsewhere, copy their chunks and maps into "
        f"{tmp_path / 'first'}."
    )
    for name in ("chunks", "maps"):
        shutil.copytree(tmp_path / "second" / name, tmp_path / "first" / name, dirs_exist_ok=True)
    assert run_bench(made, tmp_path / "first").computed == 0
    assert contents(tmp_path / "first") == contents(tmp_path / "whole")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def test_first_failure_of_each_kind_is_reported(tmp_path: Path, monkeypatch) -> None:
    good = [module.samples("scenes", 6)[i] for i in range(6)]
    dataset = Listed([*good[:3], ValueError("cut"), *good[4:]])
    monkeypatch.setattr(module, "samples", lambda data, limit: dataset)
    said: list[str] = []
    run_bench(config("VTranM:layers=9,Random", "accuracy,saco", crop="none"), tmp_path, say=said.append)
    assert len(said) == 2
    assert said[0].startswith("Failed: bench_vit_nano, VTranM:layers=9, scene 0: ValueError: ")
    assert said[1].startswith("Failed: bench_vit_nano, -, sample 3: ValueError: cut. Further failures")


def test_waiting_checks_only_missing_chunks(tmp_path: Path, monkeypatch) -> None:
    looked: list[tuple[int, int]] = []
    has = Earlier.has
    made = config("Random", "saco", chunk_size=1)

    def counted(self, chunk):
        looked.append(chunk)
        if len(looked) == 3:  # while the first process waits
            run_bench(made, tmp_path, shard=Shard(1, 2))
        return has(self, chunk)

    monkeypatch.setattr(Earlier, "has", counted)
    outcome = run_bench(made, tmp_path, shard=Shard(0, 2, patience=60))
    assert outcome.missing == 0
    assert looked == [(0, 1), (0, 3), (0, 5), (0, 1), (0, 3)]
