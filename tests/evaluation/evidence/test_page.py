from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from captum_astro.evaluation.evidence import write_evidence
from captum_astro.evaluation.report.grid import MINUS, MISSING
from captum_astro.evaluation.run.rows import Row, map_table, table
from tests.evaluation import synthetic

NO_MAPS = map_table([]).to_pandas()
HOME = "/home/somebody"
RECORD: dict[str, Any] = {
    "configuration": {
        "models": ["vit"], "data": f"boxes:{HOME}/photographs", "methods": ["A", "B"], "metrics": ["SaCo"],
        "steps": 10, "explained": "predicted", "crop": "timm",
    },
    "versions": {"torch": "2.9.0"},
    "models": {"vit": {"weights": "0123"}},
    "samples": {"count": 6},
    "made": {"date": "2026-01-02", "machine": "Linux, 2 cores", "checkpoints": ["w.pt"], "preset": None},
}  # fmt: skip
A, B = [0.6, 0.5, 0.4] * 2, [0.35, 0.25, 0.15] * 2


def _rows(values: dict[str, dict[str, Sequence[float]]], model: str = "vit") -> pd.DataFrame:
    found = [
        Row(sample, f"{sample}.png", model, method, metric, "predicted", value)
        for metric, methods in values.items()
        for method, own in methods.items()
        for sample, value in enumerate(own)
    ]
    return table(found).to_pandas()


def _page(
    folder: Path, rows: dict[str, pd.DataFrame], record: dict[str, Any] = RECORD, finished: bool = True, **options: Any
) -> str:
    runs = [synthetic.write(folder / name, own, NO_MAPS, record, finished) for name, own in rows.items()]
    write_evidence(runs, folder / "page.md", bootstrap=100, **options)
    return (folder / "page.md").read_text()


def _cells(page: str, heading: str) -> list[list[str]]:
    """The table under a heading, its text only."""
    below = page.split(f"### {heading}\n")[1].partition("\n#")[0]
    plain = re.sub(r"</?small>|<wbr>", "", below.replace("<br>", " ").replace("&nbsp;", " "))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in plain.splitlines() if line[:1] == "|"]


def test_a_score_and_who_leads(tmp_path: Path) -> None:
    page = _page(tmp_path, {"boxes": _rows({"SaCo": {"B": B, "A": A}})}, title="On photographs", notes=["Rounded."])
    assert "\n# On photographs\n\n**A wins, for certain: it is the best by SaCo.**\n" in page
    assert "\n\nRounded.\n\n" in page
    assert "6 images of `boxes:$DATA/photographs`; the predicted class is explained; images cropped" in page
    head, _, first, second, chance = _cells(page, "SaCo ↑")
    assert head == ["method", "SaCo", "behind", "rank"]
    assert [re.sub(r"\[.*\]", "[]", cell) for cell in first] == ["A", "**0.500** []", "best", "1 1 to 1"]
    assert [re.sub(r"\[.*\]", "[]", cell) for cell in second] == [
        "B",
        "0.250 []",
        f"{MINUS}0.250 p = 0.031",
        "2 2 to 2",
    ]
    assert chance[:2] == ["*chance*", "0.000"]
    low, high = map(float, re.findall(r"0\.\d+", first[1].split("[")[1]))
    assert 0.4 <= low < 0.5 < high <= 0.6
    assert _cells(page, "Mean ranks")[2:] == [["A", "1.0 [1.0, 1.0]", "100 %"], ["B", "2.0 [2.0, 2.0]", "0 %"]]
    assert _cells(page, "Who leads")[2:] == [["SaCo", "A", "B", "0.250 p = 0.031"]]
    assert "n = 6. Kendall's tau with the order in bootstrap samples: 1.00." in page
    for made in ("Begun on 2026-01-02 (UTC)", "Linux, 2 cores", "torch 2.9.0", "vit: 0123", '-c "$DATA/w.pt"'):
        assert made in page


def test_what_cannot_be_told_apart_is_marked(tmp_path: Path) -> None:
    page = _page(tmp_path, {"boxes": _rows({"deletion": {"A": [0.25] * 5, "B": [0.5] * 5}})})  # p = 2 / 32
    assert "**A is ahead, but it is not certain that it wins" in page
    assert _cells(page, "deletion ↓")[3][:3] == ["B", "50.0 [50.0, 50.0]", "~+25.0 p = 0.062"]
    assert _cells(page, "Who leads")[2] == ["deletion", "A", "B", "25.0 points ~ p = 0.062"]


@pytest.mark.parametrize(
    ("runs", "answer"),
    [
        (
            {"boxes": {"SaCo": {"A": A, "B": B}}, "masks": {"mAP": {"A": A, "B": B}, "SaCo": {"A": [0.5], "B": [0]}}},
            "A has the best mean rank in 2 of 2 comparisons; it is the best by 3 of 3 scores, for certain by 2.",
        ),
        (
            {"boxes": {"SaCo": {"A": A, "B": B}}, "order": {"sparseness": {"A": A, "B": B}}},
            "A wins, for certain: it is the best by SaCo.",
        ),
        (
            {
                "boxes": {
                    "SaCo": {"A": [0.5], "B": [0.25], "C": [0.125]},
                    "mAP": {"A": [0.1], "B": [0.25], "C": [0.5]},
                    "Dice": {"A": [0.1], "B": [0.25], "C": [0.05], "D": [0.3]},
                },
                "masks": {"SaCo": {"C": [0.5], "A": [0.4]}},
            },
            "B has the best mean rank in 1 of 2 comparisons, but is the best by none of 4 scores: no win is certain.",
        ),
        ({"order": {"sparseness": {"A": A, "B": B}}}, "Nothing on this page ranks the methods: it describes them."),
    ],
)
def test_the_first_sentence(tmp_path: Path, runs, answer: str) -> None:
    page = _page(tmp_path, {name: _rows(values) for name, values in runs.items()})
    assert page.split("\n# Evidence\n\n")[1].startswith(f"**{answer}**\n")
    assert (tmp_path / "page.svg").exists() is ("boxes" in runs)
    for name in runs:
        assert f"\n## {name}: vit\n" in page


def test_the_papers_figures_stand_beside(tmp_path: Path) -> None:
    record = {**RECORD, "made": {**RECORD["made"], "preset": ["vtranm-table2", "segmentation"]}}
    values = {"VTranM": A, "LRP": B, "ATTCAT": [0.3] * 6, "Random": [0.1] * 6}
    page = _page(tmp_path, {"table2": _rows({"mAP": values})}, record)
    assert [(line[0], line[-1]) for line in _cells(page, "mAP ↑")[2:6]] == [
        ("VTranM", "86.33"), ("ATTCAT", "48.38"), ("LRP", "55.87"), ("Random", MISSING)
    ]  # fmt: skip
    assert "; *paper* is VTranM, CVPR 2024, arXiv 2403.14552, Table 2." in page
    assert "With the paper's order: 0.33 over 3 methods." in page
    assert 'captum-astro bench --preset vtranm-table2 --part segmentation \\\n    --data-root "$DATA"' in page


def test_the_same_runs_give_the_same_files(tmp_path: Path) -> None:
    rows = synthetic.rows(4)
    files = []
    for name in ("one", "two"):
        run = synthetic.write(tmp_path / name / "run", rows, NO_MAPS, RECORD)
        files.append([file.read_bytes() for file in write_evidence([run], tmp_path / name / "page.md", bootstrap=20)])
    assert files[0] == files[1]
    assert len(files[0]) == 2
    assert len(files[0][1]) < 200_000


def test_every_score_has_a_table_of_equal_rows(tmp_path: Path) -> None:
    page = _page(tmp_path, {"run": synthetic.rows(6, failing=("LRP", 2))})
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert page.count("\n\n\n") == 0
    assert _cells(page, "Failures")[2:] == [["LRP", "ValueError", "1"]]
    assert "n&nbsp;=&nbsp;5" in page


@pytest.mark.parametrize("finished", [True, False])
def test_an_unfinished_run_says_so(tmp_path: Path, finished: bool) -> None:
    page = _page(tmp_path, {"boxes": _rows({"SaCo": {"A": A, "B": B}})}, finished=finished)
    assert ("not finished" in page) is not finished


@pytest.mark.parametrize("record", [{}, {key: value for key, value in RECORD.items() if key != "made"}])
def test_a_run_of_an_earlier_version_has_no_day(tmp_path: Path, record: dict[str, Any]) -> None:
    page = _page(tmp_path, {"boxes": _rows({"SaCo": {"A": A, "B": B}})}, record)
    assert "**A wins, for certain" in page
    assert "Begun on" not in page
    assert "None" not in page


def test_names_are_text_and_no_path_of_this_machine_is_told(tmp_path: Path) -> None:
    evil = "<script>|`x`**b** {{ 7*7 }}\x1b[2J"
    rows = synthetic.renamed(synthetic.rows(3, metrics=("SaCo",)), {"VTranM": evil, "vit": evil})
    rows.loc[0, ["value", "error"]] = [None, f"OSError: {HOME}/x.png is cut"]
    page = _page(tmp_path, {"run": rows}, title=evil)
    prose = re.sub(r"^```bash$.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    assert "<script" not in prose
    assert "**b" not in prose
    assert "49" not in re.findall(r"^# (.*)$", page, re.MULTILINE)[0]
    assert "\x1b" not in page
    assert HOME not in page
    assert str(tmp_path) not in page


@pytest.mark.parametrize(
    ("folders", "out", "message"),
    [
        (["a"], "page.html", r"--out .*page.html: the page is Markdown. Give a name that ends in .md."),
        ([], "page.md", "Give at least one folder"),
        (["a", "b/../a"], "page.md", "folders of different names"),
        (["nothing"], "page.md", "nothing holds no benchmark"),
        (["a"], "a/run.json/page.md", "run.json"),
    ],
)
def test_what_is_refused(tmp_path: Path, folders: list[str], out: str, message: str) -> None:
    synthetic.write(tmp_path / "a", _rows({"SaCo": {"A": A, "B": B}}), NO_MAPS, RECORD)
    (tmp_path / "b").mkdir()
    with pytest.raises((ValueError, OSError), match=message):
        write_evidence([tmp_path / folder for folder in folders], tmp_path / out, bootstrap=5)
