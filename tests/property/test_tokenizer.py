"""Against the library's own truncation of the whole text: whatever the text, and wherever it was cut before."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tandem.models.folder import ModelFolder
from tandem.models.sentence_files import Pipeline
from tandem.models.tokenizer import TextTokenizer, TokenizerOptions
from tandem.models.tokenizer_files import load_tokenizer
from tandem.types import Direction
from tests.made_tokenizers import KINDS, SENTENCES

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
DIRECTIONS = st.sampled_from(Direction)
# What stands between words matters most for a cut: spaces of many kinds, marks, signs, tokens that swallow spaces.
WORDS = st.sampled_from([word for sentence in SENTENCES for word in sentence.split()])
JOINTS = st.sampled_from(
    [" ", "  ", "\n", " \n ", "\t", "\r\n", "\u3000", "\u00a0", "\u200b", "\u200d", "\0", "", "!", "?! ", "'s ", "'",
     " \u0301", "\u0301", "\u0308 ", "\ufe0f", "😀", "…", "（", "。", " <mask> ", "<mask>", "[MASK]", "[SEP] ", "</s>",
     "\u0d4e ", "\u0600", "\u3164", "\u115f ", "ﬁ", "㍿", "\u1e9e", "Σ ", "İ", "1", "²", "_", "-", "--", "▁",
     "中", "中文"]
)  # fmt: skip
LONG_TEXTS = st.lists(st.tuples(WORDS, JOINTS), min_size=20, max_size=80).map(
    lambda parts: "".join(word + joint for word, joint in parts)
)
RUNS = st.tuples(
    st.sampled_from(["a", "中", "か", " ", "\n", "!", "ก", "\0", "e\u0301", "ab "]), st.integers(100, 3000)
)


@cache
def pair(kind: str, max_tokens: int) -> tuple[TextTokenizer, dict[Direction, Tokenizer]]:
    """Ours, and the library's for either end."""
    ours = TextTokenizer(KINDS[kind](), TokenizerOptions(max_tokens=max_tokens))
    theirs = {}
    for direction in Direction:
        theirs[direction] = KINDS[kind]()
        theirs[direction].enable_truncation(max_tokens, direction=direction.value)
    return ours, theirs


def check(kind: str, max_tokens: int, text: str, direction: Direction) -> None:
    ours, theirs = pair(kind, max_tokens)
    (row,) = ours.encode([text], truncate=True, direction=direction).ids
    assert row == theirs[direction].encode(text).ids


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, direction=DIRECTIONS)
def test_any_text(kind: str, text: str, direction: Direction) -> None:
    check(kind, 8, text, direction)


@pytest.mark.parametrize("kind", KINDS)
@given(text=LONG_TEXTS, direction=DIRECTIONS)
def test_a_long_text_is_cut_without_a_trace(kind: str, text: str, direction: Direction) -> None:
    check(kind, 6, text, direction)


@pytest.mark.parametrize("kind", KINDS)
@given(run=RUNS, before=LONG_TEXTS, after=LONG_TEXTS, direction=DIRECTIONS)
def test_a_run_without_a_place_to_cut(
    kind: str, run: tuple[str, int], before: str, after: str, direction: Direction
) -> None:
    check(kind, 6, before + run[0] * run[1] + after, direction)
    check(kind, 6, run[0] * run[1], direction)


@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe", "unigram"])
def test_a_megabyte_without_white_space(kind: str) -> None:
    check(kind, 64, "a" * 1_000_000, Direction.RIGHT)
    check(kind, 64, "灯塔管理员每天晚上都会记录天气" * 7_000, Direction.LEFT)


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, direction=DIRECTIONS)
def test_ids_of_a_text_are_taken_as_they_are(kind: str, text: str, direction: Direction) -> None:
    ours, _ = pair(kind, 8)
    encoded = ours.encode([text], truncate=True, direction=direction)
    assert ours.from_ids(encoded.ids, truncate=False) == encoded


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_pieces_are_what_is_encoded(kind: str, text: str) -> None:
    ours, _ = pair(kind, 10_000)
    pieces = ours.tokenize(text)
    assert [piece.id for piece in pieces] == ours.encode([text], truncate=False).ids[0]
    stops = [piece.stop for piece in pieces if piece.stop is not None]
    assert all(0 <= stop <= len(text.encode()) for stop in stops)


@pytest.fixture(scope="session")
def real_texts(shared_data: Path) -> list[str]:
    """Texts of ten scripts, 5 to 73,036 characters, and as one book."""
    path = shared_data / "length-mix" / "texts.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return [*texts[:200], " ".join(texts[:100])]


@pytest.mark.parametrize("kind", KINDS)
def test_real_texts(kind: str, real_texts: list[str]) -> None:
    ours, theirs = pair(kind, 32)
    for direction in Direction:
        rows = ours.encode(real_texts, truncate=True, direction=direction).ids
        assert rows == [encoding.ids for encoding in theirs[direction].encode_batch(real_texts)]


def test_real_texts_and_a_real_tokenizer(minilm_folder: ModelFolder, real_texts: list[str]) -> None:
    ours = TextTokenizer.load(minilm_folder, Pipeline(max_seq_length=64))
    theirs = load_tokenizer(minilm_folder)
    for direction in Direction:
        theirs.enable_truncation(64, direction=direction.value)
        rows = ours.encode(real_texts, truncate=True, direction=direction).ids
        assert rows == [encoding.ids for encoding in theirs.encode_batch(real_texts)]
