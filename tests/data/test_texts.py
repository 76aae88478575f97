from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from captum_astro.data.glove import fill_embedding, read_glove
from captum_astro.data.tables import DataError
from captum_astro.data.texts import count_words, read_imdb, read_wikitext
from captum_astro.data.tokenisers import (
    encode,
    encode_stream,
    learn_bpe,
    learn_wikitext_words,
    learn_words,
    load_tokeniser,
)
from tests.training.making import GOOD, imdb_parquet, wikitext


def test_imdb(tmp_path: Path) -> None:
    reviews = read_imdb(imdb_parquet(tmp_path), "train")
    assert len(reviews) == 40
    assert reviews.labels[:2] == [0, 1]
    assert reviews.texts[1].startswith(GOOD)
    pd.DataFrame({"text": ["fine", " "], "label": [1, 0]}).to_parquet(tmp_path / "imdb_train.parquet")
    with pytest.raises(DataError, match="row 1: there is no text"):
        read_imdb(tmp_path, "train")
    pd.DataFrame({"text": ["fine"], "label": [-1]}).to_parquet(tmp_path / "imdb_train.parquet")
    with pytest.raises(DataError, match="row 0: the label is -1"):
        read_imdb(tmp_path, "train")
    pd.DataFrame({"text": [], "label": []}).to_parquet(tmp_path / "imdb_train.parquet")
    with pytest.raises(DataError, match="there are no rows"):
        read_imdb(tmp_path, "train")
    with pytest.raises(DataError, match="with 'train' in its name"):
        read_imdb(tmp_path / "imdb_test.parquet", "train")


def test_a_folder_of_several_sets(tmp_path: Path) -> None:
    imdb_parquet(tmp_path)
    pd.DataFrame({"other": [1]}).to_parquet(tmp_path / "cifar10_train.parquet")
    assert len(read_imdb(tmp_path, "train")) == 40
    (tmp_path / "imdb_train.parquet").unlink()
    with pytest.raises(DataError, match="no parquet file of the train split"):
        read_imdb(tmp_path, "train")


def test_wikitext(tmp_path: Path) -> None:
    parts = read_wikitext(wikitext(tmp_path, lines=3))
    assert set(parts) == {"valid", "test"}
    assert count_words(parts["test"]) == 3 * 9
    (tmp_path / "wiki.train.tokens").write_text(" a \n")
    assert read_wikitext(tmp_path)["train"] == " a \n"
    (tmp_path / "wikitext2_test.txt").write_bytes(b"caf\xe9 ")
    with pytest.raises(DataError, match="not UTF-8"):
        read_wikitext(tmp_path)
    (tmp_path / "wikitext2_test.txt").write_text("\n")
    with pytest.raises(DataError, match="empty"):
        read_wikitext(tmp_path)
    (tmp_path / "wikitext2_test.txt").unlink()
    with pytest.raises(DataError, match=r"no test text, such as wiki\.test\.tokens"):
        read_wikitext(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read_wikitext(tmp_path / "nowhere")


def test_bytes_write_everything() -> None:
    text = " the <unk> theme = \n 日本 é \n\n the end"
    tokeniser = learn_bpe(" the theme of the thesis <unk> \n" * 9, 270)
    ids = encode_stream(tokeniser, text)
    assert (ids == 1).sum() == 1
    assert (ids == 2).sum() == 3
    assert tokeniser.decode(ids.tolist(), skip_special_tokens=False).replace(" <eos>", "\n") == text
    with pytest.raises(ValueError, match="at least 259 tokens"):
        learn_bpe("a", 100)


def test_names_and_files(tmp_path: Path) -> None:
    tokeniser = learn_words(["A fine film!", "a fine DAY"] * 2, size=5)
    ids = encode(tokeniser, ["fine <br /> a   zebra", " ", "a a a a"], length=3)
    assert [len(x) for x in ids] == [3, 1, 3]
    assert ids[0][2] == 1
    assert ids[1].tolist() == [1]
    tokeniser.save(str(tmp_path / "t.json"))
    assert load_tokeniser(tmp_path / "t.json").get_vocab() == tokeniser.get_vocab()
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match="not a tokeniser"):
        load_tokeniser(tmp_path / "bad.json")
    with pytest.raises(DataError, match="no such file"):
        load_tokeniser(tmp_path / "none.json")
    (tmp_path / "t.json").write_text((tmp_path / "t.json").read_text().replace("<pad>", "<nil>"))
    with pytest.raises(DataError, match="must be its id 0"):
        load_tokeniser(tmp_path / "t.json")


def test_glove(tmp_path: Path) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("the 1 2 3\n. . 4 5 6\ncat -1 0 2.5e-1\nthe 9 9 9\n")
    ids, vectors = read_glove(file, {"the": 7, ". .": 2, "dog": 3})
    assert ids.tolist() == [7, 2]
    assert vectors.tolist() == [[1, 2, 3], [4, 5, 6]]
    weight = torch.randn(9, 3)
    before, size = weight.clone(), weight[ids].square().mean()
    fill_embedding(weight, ids, vectors)
    torch.testing.assert_close(weight[ids].square().mean(), size)
    torch.testing.assert_close(weight[7] / weight[7, 0], torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(weight[[0, 1, 3, 4, 5, 6, 8]], before[[0, 1, 3, 4, 5, 6, 8]])
    with pytest.raises(DataError, match="3 numbers, too few for a model of width 4"):
        fill_embedding(torch.randn(9, 4), ids, vectors)
    with pytest.raises(DataError, match="too few to reduce"):
        fill_embedding(torch.randn(9, 2), ids, vectors)
    with pytest.raises(DataError, match="none of its words"):
        read_glove(file, {"zebra": 1})
    with pytest.raises(DataError, match="no such file"):
        read_glove(tmp_path / "none", {})
    file.write_text("the 1 2 3\ncat 1 x 3\n")
    with pytest.raises(DataError, match="line 2: could not convert"):
        read_glove(file, {"cat": 1})


def test_reduced_vectors_keep_their_distances() -> None:
    vectors = torch.randn(50, 3) @ torch.randn(3, 10)
    weight = torch.randn(50, 3)
    fill_embedding(weight, torch.arange(50), vectors)
    wanted, found = torch.cdist(vectors, vectors), torch.cdist(weight, weight)
    torch.testing.assert_close(found / found.mean(), wanted / wanted.mean(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("content", ["the\n", "\n", "the 1 2\n" + "x" * (1 << 20), "the" + " 1" * (1 << 19)])
def test_lines_that_are_no_vectors(content: str, tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text(content)
    with pytest.raises(DataError, match=r"glove\.txt, line [12]: no line with a word and its numbers"):
        read_glove(tmp_path / "glove.txt", {"the": 2})


@pytest.mark.timeout(20)
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("wiki.valid.tokens", "glove.txt", "t.json"):
        os.mkfifo(tmp_path / name)
    for read in (
        lambda: read_wikitext(tmp_path),
        lambda: read_glove(tmp_path / "glove.txt", {}),
        lambda: load_tokeniser(tmp_path / "t.json"),
    ):
        with pytest.raises(DataError, match="a device, a FIFO or a socket"):
            read()


def test_counts_that_are_too_small() -> None:
    for make in (
        lambda: learn_words(["a"], size=2),
        lambda: learn_words(["a"], least=0),
        lambda: learn_wikitext_words("a", size=3),
        lambda: encode(learn_words(["a a"]), ["a"], length=0),
    ):
        with pytest.raises(ValueError, match="at least"):
            make()
