from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from captum_astro.evaluation.analysis import summary
from captum_astro.evaluation.report import write_report, write_tables
from captum_astro.evaluation.report.html import PICTURES, breakable, render
from captum_astro.evaluation.report.pictures import examples
from captum_astro.evaluation.report.styles import styles
from captum_astro.evaluation.run.rows import MapRow, map_table
from captum_astro.metrics.registry import all_metrics
from tests.commands import run_command
from tests.evaluation import synthetic

CONFIG = {
    "configuration": {"data": "scenes", "steps": 20, "methods": list(synthetic.METHODS)},
    "versions": {"torch": "2.9.0", "timm": "1.0.31"},
    "models": {"vit": {"weights": "0123"}},
    "samples": {"count": 12, "digest": "4567"},
}
NO_MAPS = map_table([]).to_pandas()
_VOID = {"meta", "img", "br", "wbr", "path", "circle"}
_ALLOWED = ("data:image/jpeg;base64,", "#")


def _png_of(width: int, height: int) -> bytes:
    """A few bytes that claim to be so large."""
    held = io.BytesIO()
    Image.new("L", (4, 4)).save(held, "PNG")
    return held.getvalue()[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + held.getvalue()[24:]


class _Checked(HTMLParser):
    """Every tag is closed, nothing is fetched, and no attribute runs a script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "action", "xlink:href"):
                assert str(value).startswith(_ALLOWED), (tag, name, value)
        self.ids += [str(value) for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


def _photo() -> bytes:
    """A sound image, larger than any that a benchmark stores."""
    file = io.BytesIO()
    Image.new("RGB", (225, 224), "red").save(file, "PNG")
    return file.getvalue()


PHOTO = _photo()


def _text(page: str) -> str:
    checked = _Checked(page)
    assert len(checked.ids) == len(set(checked.ids))
    assert checked.tags.count("script") == 1
    return re.sub(r"\s+", " ", "".join(checked.text))


@pytest.fixture(scope="module")
def page() -> str:
    return render(synthetic.rows(12, failing=("LRP", 3)), synthetic.maps(8), CONFIG, bootstrap=100)


def test_page_is_complete_and_self_contained(page: str) -> None:
    text = _text(page)
    for words in (
        "vit", "scenes", "torch 2.9.0", "samples12", "Scores", "Curves", "Compared with VTranM", "Ranks",
        "Best for VTranM by energy inside", "ValueError: no map", "image-3.png", "chance",
    ):  # fmt: skip
        assert words in text
    assert "not finished" not in text
    assert all(name in text for name, info in all_metrics().items() if not info.of_model)
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert page.count("<polyline") + page.count('<g data-line="') == 6 * 4  # six drawings of four methods
    assert len(page) < 1_000_000


def test_page_values_match_the_summary(page: str) -> None:
    table = summary(synthetic.rows(12, failing=("LRP", 3)), bootstrap=100)
    text = _text(page)
    for row in table[(table["method"] != "-") & (table["metric"] != "pointing game")].to_dict("records"):
        scale, digits = (100, 1) if all_metrics()[row["metric"]].percent else (1, 3)
        shown = [f"{scale * row[name]:.{digits}f}".replace("-", "\N{MINUS SIGN}") for name in ("mean", "low", "high")]
        assert "{}[{}, {}]".format(*shown) in text
    accuracy = table[table["metric"] == "accuracy"].iloc[0]
    assert f"top-1 accuracy {100 * accuracy['mean']:.1f} %" in text


def test_the_best_is_marked_by_the_metrics_direction() -> None:
    rows = synthetic.rows(40, metrics=("positive AUC", "energy inside"))
    page = render(rows, NO_MAPS, CONFIG, bootstrap=20)
    scores = page[page.index("<h3>Scores") : page.index("<h3>Curves")]
    marked = re.findall(r'<th scope="row" data-value="(\w+)">(?:(?!</tr>).)*class="best"', scores, re.DOTALL)
    assert marked == ["VTranM", "VTranM"]  # the lowest and the highest
    compared = page[page.index("<h3>Compared") : page.index("<h3>Ranks")]
    assert 'class="worse"' in compared
    assert 'class="better"' not in compared.replace('<span class="better">', "")


EVIL = "</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}$_^~\\|*`"


def test_every_name_is_text() -> None:
    names = {"VTranM": EVIL, "vit": f"m{EVIL}", "image-3.png": f"i{EVIL}"}
    rows = synthetic.rows(6, failing=("LRP", 3))
    rows = synthetic.renamed(rows, names)
    rows["error"] = rows["error"].where(rows["error"].isna(), f"e{EVIL}")
    maps = synthetic.renamed(synthetic.maps(6), names)
    config = {"configuration": {"data": f"d{EVIL}", EVIL: EVIL}, "versions": {f"v{EVIL}": EVIL}}
    page = render(rows, maps, config, against=EVIL, bootstrap=10)
    text = _text(page)  # no image, handler or second script has come in
    for word in ("m", "i", "e", "d", "v", ""):
        assert f"{word}{EVIL}" in text


def test_only_the_pages_own_script_may_run(page: str) -> None:
    import base64
    import hashlib

    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("metrics", "missing"),
    [
        (("SaCo",), ("Curves", "Segmentation", "top-1")),
        (("mIoU", "object share"), ("Curves", "SaCo", "Localisation")),
        (("AOPC", "LOdds"), ("positive AUC", "top-1 accuracy")),
        (("accuracy",), ("Compared with", "Ranks", "Curves")),
    ],
)
def test_runs_without_some_of_it(metrics: tuple[str, ...], missing: tuple[str, ...]) -> None:
    text = _text(render(synthetic.rows(4, metrics=metrics), NO_MAPS, {}, finished=False, bootstrap=10))
    assert "This run is not finished" in text
    assert "No maps were kept" in text
    assert not [word for word in missing if word in text]


def test_one_method_one_sample() -> None:
    text = _text(render(synthetic.rows(1, ("LRP",)), synthetic.maps(1, ("LRP",)), CONFIG, bootstrap=10))
    assert "Compared with" not in text
    assert "image-0.png" in text


def test_everything_failed() -> None:
    rows = synthetic.rows(2, ("LRP", "VTranM"), metrics=("SaCo", "mIoU", "AOPC"))
    rows = rows.assign(value=np.nan, curve=None, error="RuntimeError: out of memory")
    text = _text(render(rows, NO_MAPS, CONFIG, bootstrap=10))
    assert "RuntimeError: out of memory" in text
    assert "2 failed" in text


def test_all_kinds_of_maps() -> None:
    maps = synthetic.maps(2)
    side = 56 * 56
    odd = {
        "LRP": np.zeros(side, "<f2").tobytes(),
        "Random": np.full(side, np.nan, "<f2").tobytes(),
        "VTranM": b"\0\0",  # torn
    }
    maps["data"] = [odd.get(method, data) for method, data in zip(maps["method"], maps["data"], strict=True)]
    wide = [MapRow(5, "wide", "vit", "VTranM", "true", 7, 14, np.arange(98).astype("<f2").tobytes())]
    torn = [MapRow(5, "wide", "vit", "input", "-", 7, 14, b"no JPEG")]
    rows = synthetic.rows(6)
    text = _text(render(rows, pd.concat([maps, map_table(wide + torn).to_pandas()]), CONFIG, bootstrap=10))
    assert "no map" in text
    text = _text(render(rows, map_table(wide).to_pandas(), CONFIG, bootstrap=10))
    assert "Maps of the true class" in text


def test_red_is_positive_and_blue_negative() -> None:
    rows = synthetic.rows(1)
    values = np.repeat([1.0, -1.0], 32).astype("<f2")
    maps = map_table([MapRow(0, "a", "vit", "VTranM", "predicted", 8, 8, values.tobytes())]).to_pandas()
    text = render(rows, maps, CONFIG, bootstrap=10)
    assert "red above zero (for the class) and blue below (against it)" in text
    shown = examples(maps, rows, "VTranM", PICTURES)
    assert shown is not None
    [picture] = shown.others[0].pictures
    assert picture.address is not None
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.address.split(",")[1])))).astype(int)
    assert drawn[0, 0] == pytest.approx([255, 0, 0], abs=12)
    assert drawn[-1, -1] == pytest.approx([0, 0, 255], abs=12)


@pytest.mark.parametrize(
    "damaged", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG", b"", b"odd", _png_of(60_000, 60_000), PHOTO]
)
def test_a_damaged_picture_costs_only_itself(damaged: bytes) -> None:
    rows, maps = synthetic.rows(6, ("VTranM",)), synthetic.maps(6, ("VTranM",))
    for method in ("input", "VTranM"):
        place = maps.index[(maps["method"] == method) & (maps["sample"] == 2)][0]
        maps.at[place, "data"] = damaged
    shown = examples(maps, rows, "VTranM", PICTURES)
    assert shown is not None
    every = {one.name: one.pictures for one in [*shown.best, *shown.worst, *shown.others]}
    drawn = {name: [bool(picture.address) for picture in pictures] for name, pictures in every.items()}
    assert sorted(drawn.values()) == [[False], *[[True, True]] * 5]


def test_a_map_of_impossible_size_costs_only_itself() -> None:
    rows, maps = synthetic.rows(6, ("VTranM",)), synthetic.maps(6, ("VTranM",))
    place = maps.index[(maps["method"] == "VTranM") & (maps["sample"] == 2)][0]
    maps.loc[place, ["height", "width"]] *= -1  # whose product is right
    shown = examples(maps, rows, "VTranM", PICTURES)
    assert shown is not None
    every = [*shown.best, *shown.worst, *shown.others]
    assert [one.name for one in every if not one.pictures[1].address] == ["image-2.png"]


def test_the_size_is_bounded() -> None:
    methods = tuple(f"Method{i}" for i in range(14))
    rows, maps = synthetic.rows(20, methods, metrics=("energy inside",)), synthetic.maps(20, methods)
    shown = examples(maps, rows, "Method3", PICTURES)
    assert shown is not None
    assert (len(shown.best), len(shown.worst), len(shown.others)) == (3, 3, 14)
    drawn = [picture for one in [*shown.best, *shown.worst, *shown.others] for picture in one.pictures]
    assert len(drawn) == 20 * 15
    assert all(picture.address for picture in drawn)
    large, small = (
        np.mean([len(picture.address or "") for one in group for picture in one.pictures])
        for group in (shown.best, shown.others)
    )
    assert 90 * large + PICTURES * small < 4_000_000  # all that one page shows
    few = examples(maps, rows, "Method3", PICTURES // 10)
    assert few is not None
    assert len(few.others) == 3


def test_an_empty_run_is_named() -> None:
    with pytest.raises(ValueError, match="no results yet"):
        render(synthetic.rows(0), NO_MAPS, CONFIG)
    with pytest.raises(ValueError, match=r"no method 'Magic'.*LRP"):
        render(synthetic.rows(2), NO_MAPS, CONFIG, against="Magic")


def test_names_break_between_words() -> None:
    assert breakable("TransformerMM(start_layer=4)") == "Transformer<wbr>MM(<wbr>start_<wbr>layer=<wbr>4)"
    assert str(breakable("<b>")).replace("<wbr>", "") == "&lt;b&gt;"
    assert breakable("") == ""


def test_styles_differ_also_without_colour() -> None:
    drawn = styles([str(i) for i in range(15)])
    seen = [(style.colour, style.dash) for style in drawn.values()]
    assert len(set(seen)) == 15
    assert all(len(style.marker) > 5 for style in drawn.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows, maps = synthetic.rows(6, failing=("LRP", 3)), synthetic.maps(4)
    return synthetic.write(tmp_path_factory.mktemp("run") / "finished", rows, maps, CONFIG)


def test_tables(folder: Path, tmp_path: Path) -> None:
    files = write_tables(folder, tmp_path / "new" / "tables", bootstrap=20)
    assert [file.name for file in files] == [
        "summary.csv", "comparisons.csv", "ranking.csv", "failures.csv", "tables.md", "tables.tex"
    ]  # fmt: skip
    assert sorted(file.name for file in (tmp_path / "new" / "tables").iterdir()) == sorted(f.name for f in files)
    read = pd.read_csv(files[0])
    pd.testing.assert_frame_equal(read, summary(synthetic.rows(6, failing=("LRP", 3)), bootstrap=20), atol=1e-12)
    with files[1].open() as file:
        assert {row["against"] for row in csv.DictReader(file)} == {"VTranM"}
    markdown = files[4].read_text()
    for block in markdown.split("###")[1:]:
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
        describes = block.strip().startswith(("vit: Randomisation", "vit: Complexity"))  # no measure of which is best
        assert ("**" in block) is not describes
    latex = files[5].read_text()
    titles = {metric.title for metric in all_metrics().values() if not metric.of_model}
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == len(titles)
    for table in latex.split(r"\toprule")[1:]:
        rows = [line for line in table.split(r"\bottomrule")[0].splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1


def test_names_in_tables_are_text(tmp_path: Path) -> None:
    rows = synthetic.renamed(synthetic.rows(3, metrics=("SaCo",)), {"VTranM": EVIL})
    folder = synthetic.write(tmp_path / "run", rows, NO_MAPS, CONFIG)
    files = write_tables(folder, tmp_path / "tables", against=EVIL, bootstrap=5)
    assert EVIL in set(pd.read_csv(files[0])["method"])
    line = next(line for line in files[4].read_text().splitlines() if "onerror" in line)
    assert "<img" not in line.replace("\\<", "")
    assert len(re.findall(r"(?<!\\)\|", line)) == 3
    line = next(line for line in files[5].read_text().splitlines() if "onerror" in line)
    assert r"\textless{}img" in line
    assert r"\{\{ 7*7 \}\}\$\_\textasciicircum{}" in line


def test_control_characters_are_visible(tmp_path: Path) -> None:
    commands = "a\x1b[2J\x9b1m\u202eb"
    rows = synthetic.renamed(synthetic.rows(3, metrics=("SaCo",)), {"VTranM": commands, "vit": commands})
    config = {**CONFIG, "configuration": {"data": f"{commands}\ud800"}}  # half a character, which JSON may hold
    folder = synthetic.write(tmp_path / "run", rows, NO_MAPS, config)
    texts = [write_report(folder, tmp_path / "page.html").read_text(encoding="utf-8")]
    texts += [file.read_text() for file in write_tables(folder, tmp_path / "tables", bootstrap=5)[4:]]
    for text in texts:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert "x1b" in text
    assert r"<title>Explanations compared: a\x1b[2J\x9b1m\u202eb</title>" in texts[0]
    assert r"\x9b1m\u202eb\ud800" in texts[0]


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    rows = synthetic.renamed(synthetic.rows(3, failing=("LRP", 1)), {"VTranM": "=1+1", "image-1.png": "@x"})
    folder = synthetic.write(tmp_path / "run", rows, NO_MAPS, CONFIG)
    tables = [pd.read_csv(file) for file in write_tables(folder, tmp_path / "tables", "=1+1", 5)[:4]]
    cells = {cell for table in tables for cell in table.to_numpy().ravel() if isinstance(cell, str)}
    assert {"'=1+1", "'@x", "-"} <= cells
    assert not [cell for cell in cells if cell != "-" and cell[0] in "=+-@"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("{", "run.json is damaged"),
        ("[1]", "run.json is damaged"),
        ('{"configuration": 5}', "configuration is no object"),
        ('{"samples": [1]}', "samples is no object"),
        ('{"format": 99}', "another version of captum-astro (format 99, not"),
    ],
)
def test_an_odd_record_is_named(monkeypatch, capsys, folder: Path, tmp_path: Path, record: str, words: str) -> None:
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(record)
    code, out = run_command(monkeypatch, capsys, "report", tmp_path / "run")
    assert code == 1
    assert words in out


def test_a_damaged_file_is_on_the_page(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", synthetic.rows(3), synthetic.maps(2), CONFIG)
    file = folder / "maps" / "maps-00-000000.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="maps-00-000000.parquet is damaged"):
        page = write_report(folder, tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"{file} is damaged. It is left out" in _text(page)


def test_the_command(monkeypatch, capsys, folder: Path, tmp_path: Path) -> None:
    def run(*words: object) -> tuple[int, str]:
        return run_command(monkeypatch, capsys, "report", *words)

    code, out = run(folder, "--tables")
    assert code == 0, out
    assert "report.html" in out
    assert "tables.tex" in out
    assert (folder / "report.html").exists()
    assert (folder / "tables" / "summary.csv").exists()
    code, out = run(folder, "--against", "Magic", "--out", tmp_path / "x.html")
    assert (code, "no method 'Magic'" in out) == (1, True)
    assert not list(tmp_path.iterdir())
    code, out = run(tmp_path)
    assert (code, "holds no benchmark" in out) == (1, True)


def test_an_unfinished_run(tmp_path: Path) -> None:
    rows = synthetic.rows(3, metrics=("SaCo",))
    folder = synthetic.write(tmp_path / "run", rows, NO_MAPS, CONFIG, finished=False)
    text = _text(write_report(folder, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "This run is not finished" in text
    assert "samples3 of 12" in text
    assert json.dumps(CONFIG["versions"]["torch"]) in text


def test_no_partial_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        write_report(folder, tmp_path / "nowhere" / "page.html")
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken"):
        write_tables(folder, tmp_path / "taken", bootstrap=5)
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]
