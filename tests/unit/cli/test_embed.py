"""``tandem embed`` with a device that computes nothing: which words are texts, which are files, what is told."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tandem.cli.main import main
from tandem.models.folder import ModelFolder

Embed = Callable[..., int]


@pytest.fixture
def embed(minilm_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Embed:
    """The command in an empty folder, with the real tokenizer."""
    monkeypatch.setenv("TANDEM_MODEL", str(minilm_folder.path.resolve()))
    monkeypatch.setenv("TANDEM_BACKEND", "fake")
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(["embed", *words])


@pytest.fixture
def embed_without_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Embed:
    """What is wrong in the words must be told before a model is looked for, and there is none here."""
    monkeypatch.setenv("TANDEM_MODEL", str(tmp_path / "there is no model"))
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(["embed", *words])


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_texts_are_printed_as_json_arrays(embed: Embed, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed("how warm is the sea?", "hello") == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert len(first) == len(second) > 8
    assert np.linalg.norm(np.array(first)) == pytest.approx(1, abs=1e-6)
    assert first != second


def test_options_reach_the_model(embed: Embed, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed("hello", "--dimensions", "4", "--no-normalize") == 0
    vector = json.loads(capsys.readouterr().out)
    assert len(vector) == 4
    assert np.linalg.norm(vector) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("hello", "--prompt-name", "nope"), "'nope'"),
        (("hello", "--dimensions", "100000"), "100000"),
        (("hello " * 1000, "--no-truncate"), "token"),
        (("in.txt", "-o", "out.npy", "--prompt-name", "nope"), "'nope'"),
        (("in.txt", "-o", "out.npy", "--dimensions", "0"), "dimensions"),
    ],
)
def test_wrong_options_are_told_once_and_not_by_row(
    embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    (tmp_path / "in.txt").write_text("a\nb\n")
    assert embed(*words) == 2
    assert told in capsys.readouterr().err


def test_a_file(embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("id,question\n7,how warm?\n8,how cold?\n")
    assert embed("in.csv", "-o", "out.jsonl", "--column", "question", "--output-column", "v") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("out.jsonl: 2 texts")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["question"]) for row in rows] == [("7", "how warm?"), ("8", "how cold?")]
    assert embed("how warm?") == 0
    assert json.loads(capsys.readouterr().out) == rows[0]["v"]


def test_quiet(embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    assert embed("in.txt", "-o", "out.npy", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert len(np.load(tmp_path / "out.npy")) == 1


def test_a_pipe_into_a_pipe(
    embed: Embed, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    give(monkeypatch, b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n')
    assert embed("-", "--input-format", "jsonl", "-o", "-", "--quiet") == 0
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == [1, 2]


def test_a_named_pipe_is_a_stream(embed: Embed, tmp_path: Path) -> None:
    """As the shell's <(...) is."""
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"a\nb\n",))
    writer.start()
    assert embed("pipe.txt", "-o", "out.npy") == 0
    writer.join()
    assert len(np.load(tmp_path / "out.npy")) == 2


def test_faulty_rows_by_policy(embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("a\n\nb\n")
    assert embed("in.txt", "-o", "out.npy") == 5
    assert "1 of 3 rows can not be embedded" in capsys.readouterr().err
    assert embed("in.txt", "-o", "out.npy", "--on-error", "skip") == 0
    assert "3 texts, 1 of them left out" in capsys.readouterr().err
    assert len(np.load(tmp_path / "out.npy")) == 2
    assert embed("in.txt", "-o", "out.npy", "--on-error", "null", "--overwrite") == 0
    assert "3 texts, 1 of them without a vector" in capsys.readouterr().err
    assert len(np.load(tmp_path / "out.npy")) == 3


def test_a_text_that_is_too_long_is_one_rows_fault(
    embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("short\n" + "long " * 3000 + "\nshort too\n")
    assert embed("in.txt", "-o", "out.npy", "--no-truncate") == 5
    assert "in.txt, line 2: the text has " in capsys.readouterr().err
    assert embed("in.txt", "-o", "out.npy", "--no-truncate", "--on-error", "null") == 0
    assert np.isnan(np.load(tmp_path / "out.npy")).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("in.txt",), 2, "in.txt is a file: say with -o where its vectors go"),
        (("-",), 2, "- is a file"),
        (("missing.csv",), 5, "there is no file missing.csv"),
        (("missing.csv", "-o", "out.npy"), 5, "there is no file missing.csv"),
        (("two words.csv", "-o", "out.npy"), 5, "there is no file two words.csv"),
        (("folder", "-o", "out.npy"), 5, "folder is a folder"),
        (("in.txt", "more", "-o", "out.npy"), 2, "-o takes one input file, got 2"),
        (("in.txt", "-o", "out.bin"), 2, "out.bin is not known from its name: use .parquet, .npy, .jsonl"),
        (("in.dat", "-o", "out.npy"), 2, "say what it is with --input-format"),
        (("in.txt.gz", "-o", "out.npy"), 2, "compressed; send it unpacked through a pipe"),
        (("-", "-o", "out.npy"), 2, "say what it is with --input-format"),
        (("in.csv", "-o", "out.npy"), 5, "--column; its columns are: a, b"),
        (("in.csv", "-o", "out.npy", "--column", "c"), 5, "no column 'c'; its columns are: a, b"),
        (("in.txt", "-o", "in.txt", "--input-format", "txt"), 2, "in.txt is not known from its name"),
        (("in.txt", "-o", "none/out.npy"), 5, "does not exist"),
        (("in.txt", "-o", "folder.npy"), 5, "is not a file"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_looked_for(
    embed_without_model: Embed,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    for name in ("in.txt", "in.dat", "in.txt.gz"):
        (tmp_path / name).write_text("a\n")
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.npy").mkdir()
    assert embed_without_model(*words) == code
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("text", ["folder", "a.b.c", "what is a.txt file", "x" * 5000, "nul\0"])
def test_other_words_are_texts(embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "folder").mkdir()
    assert embed(text) == 0
    assert capsys.readouterr().out.startswith("[")


def test_a_link_is_followed(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "out.npy").symlink_to(tmp_path / "deep" / "real.npy")
    assert embed("in.txt", "-o", "out.npy") == 0
    assert (tmp_path / "out.npy").is_symlink()
    assert len(np.load(tmp_path / "deep" / "real.npy")) == 1


def test_another_model_setting_does_not_go_on(embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that was stopped by a text too long was done with other dimensions."""
    (tmp_path / "in.txt").write_text("long " * 3000)
    assert embed("in.txt", "-o", "out.npy", "--no-truncate") == 5
    capsys.readouterr()
    assert embed("in.txt", "-o", "out.npy", "--dimensions", "4") == 5
    assert "dimensions was 16 and is 4; truncate was no and is yes" in capsys.readouterr().err
    assert embed("in.txt", "-o", "out.npy", "--dimensions", "4", "--restart") == 0
