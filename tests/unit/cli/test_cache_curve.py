from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from tandem.caching.near_curve import Replay, curve, judge
from tandem.cli.cache_curve import LEAST, configure, curve_lines, outcome_lines, read_texts, run
from tandem.errors import ConfigError, JobError
from tandem.verification import Promise
from tests.engines import words, write_word_model


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args(words)


def seen(texts: int = 4000) -> Replay:
    """Every second text has a candidate; from a similarity of 0.9 on the rows are near."""
    rng = np.random.default_rng(0)
    similarities = rng.uniform(0.5, 1.0, texts // 2)
    return Replay(texts, np.arange(0, texts, 2), similarities, np.where(similarities >= 0.9, 0.97, 0.7))


def test_texts_are_read_from_lines_and_from_json(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_text("one\n\n two \nthree\n", encoding="utf-8")
    lines.write_text('"one"\n{"text": "two", "n": 1}\n', encoding="utf-8")
    assert list(read_texts(plain, "text", None)) == ["one", "two", "three"]
    assert list(read_texts(plain, "text", 2)) == ["one", "two"]
    assert list(read_texts(lines, "text", None)) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"question": "one"}\n', "line 1: no text; name the field with --column"),
        ("a.jsonl", b"{\n", "can not be read"),
        ("a.txt", b"\xff\xfe\n", "can not be read"),
        ("gone.txt", None, "can not be read"),
    ],
)
def test_what_holds_no_texts_is_refused(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError, match=said):
        list(read_texts(path, "text", None))


def test_the_curve_falls_and_the_promise_holds_on_what_was_not_seen() -> None:
    points = curve(seen(), (0.05, 0.1, 0.3, 0.5))
    assert [point[0] for point in points] == [0.05, 0.1, 0.3, 0.5]
    assert [round(point[1], 2) for point in points[:2]] == [0.97, 0.97]
    assert points[2][1] > points[3][1] > 0.7
    found = judge(seen(), 0.95, Promise(max_error=0.05))
    assert found.threshold is not None
    assert found.served > 100
    assert found.error <= 0.05
    assert found.could >= found.served
    assert judge(seen(), 0.99, Promise(max_error=0.05)).served == 0
    assert judge(seen(10), 0.95, Promise(max_error=0.05)).threshold is None


def test_a_stream_without_candidates_serves_nothing() -> None:
    nothing = Replay(10, np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    assert curve(nothing, (0.1, 0.5)) == []
    found = judge(nothing, 0.95, Promise(max_error=0.05))
    assert (found.served, found.could, found.error) == (0, 0, 0.0)
    assert len(list(curve_lines(nothing))) == 1
    assert len(list(outcome_lines([(0.95, Promise(max_error=0.05), found)]))) == 2


def test_the_command_on_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_word_model(tmp_path / "model")
    rng = np.random.default_rng(0)
    texts = [words(*rng.integers(0, 40, 6)) for _ in range(2 * LEAST)]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    common = (str(tmp_path / "texts.txt"), "--model", str(model), "--device", "cpu")
    assert run(parsed(*common, "--cosine", "0.9,0.5", "--out", str(tmp_path / "out"))) == 0
    printed = capsys.readouterr().out
    assert "served   mean cosine" in printed
    assert printed.count("0.900  ") == 2
    content = json.loads((tmp_path / "out" / "curve.json").read_bytes())
    assert content["texts"] >= LEAST
    assert len(content["promises"]) == 4
    assert (tmp_path / "out" / "curve.svg").read_text(encoding="utf-8").startswith("<svg")
    assert run(parsed(*common, "--key", "minhash", "--limit", str(LEAST + 20))) == 0


def test_too_few_texts_and_wrong_numbers_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="--cosine takes numbers"):
        run(parsed(str(file), "--cosine", "high"))
    model = write_word_model(tmp_path / "model")
    with pytest.raises(JobError, match="takes 200 at the least"):
        run(parsed(str(file), "--model", str(model)))
