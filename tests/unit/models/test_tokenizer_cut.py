"""Where a long text may be cut; tests/property shows that nothing changes where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from tandem.models.tokenizer_cut import cut_points
from tests.made_tokenizers import KINDS, byte_bpe, metaspace_bpe, unigram, wordpiece


def changed(tokenizer: Tokenizer, **parts: Any) -> Tokenizer:
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def with_token(tokenizer: Tokenizer, content: str, **flags: bool) -> Tokenizer:
    tokenizer.add_tokens([AddedToken(content, **flags)])
    return tokenizer


CUT: dict[str, Callable[[], Tokenizer]] = {
    **KINDS,
    "strips its end": lambda: unigram(normalizer=normalizers.Strip(left=False)),
    "runs of spaces as tokens": lambda: with_token(byte_bpe(), "   "),
}
WHOLE: dict[str, Callable[[], Tokenizer]] = {
    "no pre-tokenizer": lambda: changed(unigram(), pre_tokenizer=pre_tokenizers.Sequence([])),
    "spaces inside tokens": lambda: changed(metaspace_bpe(), pre_tokenizer=pre_tokenizers.Metaspace(split=False)),
    "bytes unsplit": lambda: changed(byte_bpe(), pre_tokenizer=pre_tokenizers.ByteLevel(use_regex=False)),
    "a pattern of its own": lambda: changed(
        byte_bpe(), pre_tokenizer=pre_tokenizers.Split(Regex(r"\d+"), behavior="isolated")
    ),
    "marks the first word": lambda: changed(
        unigram(),
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="first")]
        ),
    ),
    "strips its start": lambda: unigram(normalizer=normalizers.Strip()),
    "prepends": lambda: unigram(normalizer=normalizers.Prepend("x")),
    "replaces at will": lambda: unigram(normalizer=normalizers.Replace(Regex("a b"), "c")),
    "a token of two words": lambda: with_token(wordpiece(), "New York"),
    "a space as token": lambda: with_token(byte_bpe(), " "),
    "a token that takes the next space": lambda: with_token(byte_bpe(), "tok", rstrip=True),
}


@pytest.mark.parametrize("kind", CUT)
def test_these_are_cut(kind: str) -> None:
    assert cut_points(CUT[kind]()) is not None


@pytest.mark.parametrize("kind", WHOLE)
def test_these_are_never_cut(kind: str) -> None:
    assert cut_points(WHOLE[kind]()) is None


@pytest.mark.parametrize(
    ("tokenizer", "text", "expected"),
    [
        (wordpiece(), "ab cd", [2]),
        (wordpiece(), "ab  cd", []),
        (wordpiece(), "ab!cd", [2, 3]),
        (wordpiece(), "a[SEP]b", []),
        (wordpiece(), "灯塔", [1]),
        (with_token(wordpiece(), "灯塔"), "灯塔", []),
        (with_token(wordpiece(), "sea", single_word=True), "灯塔", []),
        (wordpiece(), "a\u0301 b", []),
        (unigram(), "ab\ncd", [2]),
        (unigram(), "ab!cd", []),
        (byte_bpe(), "ab cd, ef", [2]),
        (byte_bpe(), "ab\ncd", []),
    ],
)
def test_where(tokenizer: Tokenizer, text: str, expected: list[int]) -> None:
    points = cut_points(tokenizer)
    assert points is not None
    assert [found.start() for found in points.finditer(text)] == expected
