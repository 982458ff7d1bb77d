from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tandem.bench.texts import data_folder, english_mix, generate, questions, sts_dev


def words(texts: list[str], tokens: int) -> list[str]:
    """A cutter by words, so that no model is needed."""
    return [" ".join(text.split()[:tokens]) for text in texts]


def test_without_data_the_texts_are_made_up_and_say_so() -> None:
    mix, asked = english_mix(None, words, 50), questions(None, 20)
    assert mix.generated
    assert asked.generated
    assert (mix.source, len(mix.texts), len(asked.texts)) == ("generated", 50, 20)
    assert sts_dev(None) is None


def test_made_up_texts_are_the_same_each_time_and_mixed_in_length() -> None:
    texts = generate(200, (1, 10, 100), seed=3)
    assert texts == generate(200, (1, 10, 100), seed=3)
    assert texts != generate(200, (1, 10, 100), seed=4)
    lengths = sorted(len(text.split()) for text in texts)
    assert lengths[0] < 5
    assert lengths[-1] > 80
    assert len(set(texts)) > 190


def test_the_mix_is_the_english_part_cut(tmp_path: Path) -> None:
    (tmp_path / "length-mix").mkdir()
    rows = [{"lang": "en", "text": "one " * 400}, {"lang": "de", "text": "zwei"}, {"lang": "en", "text": "three"}]
    with gzip.open(tmp_path / "length-mix" / "texts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)))
    mix = english_mix(tmp_path, words)
    assert [len(text.split()) for text in mix.texts] == [256, 1]
    assert not mix.generated


def test_questions_are_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "search-queries").mkdir()
    path = tmp_path / "search-queries" / "topics.dpr.nq.test.txt"
    path.write_bytes(b"who is it\t['me']\r\nwhere is it\t['here', 'there']\r\n")
    assert questions(tmp_path).texts == ["who is it", "where is it"]


def test_sts_pairs_keep_quotes_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "stsb").mkdir()
    line = 'main\tfile\t2012\t1\t3.5\tA "man" sits.\tHe sits "down\n'
    (tmp_path / "stsb" / "sts-dev.csv").write_text(line, encoding="utf-8")
    pairs = sts_dev(tmp_path)
    assert pairs is not None
    assert (pairs.left, pairs.right, pairs.gold) == (['A "man" sits.'], ['He sits "down'], [3.5])


def test_a_data_folder_that_is_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder(str(tmp_path / "absent")) is None
