from __future__ import annotations

from collections.abc import Sequence

import pytest

from tandem.semantic.signals import COUNT, read, signals

QUESTION, OTHER = "how do I open an account", "how do I close an account"


def seen(asked: str | None, stored: str | None) -> Sequence[float]:
    first, second = (None if text is None else read(text) for text in (asked, stored))
    return signals(first, second, 0.9)


def test_the_cosine_comes_first_and_there_are_always_as_many() -> None:
    for asked, stored in ((None, None), ("a", None), ("", ""), ("!?", "..."), (QUESTION, OTHER)):
        found = seen(asked, stored)
        assert len(found) == COUNT
        assert found[0] == 0.9


def test_the_same_words_are_as_near_as_can_be() -> None:
    assert seen(QUESTION, QUESTION.upper() + "?")[2:5] == (1, 1, 1)


def test_a_word_that_differs_is_seen() -> None:
    _, _, both, words, pieces, _ = seen(QUESTION, OTHER)
    assert both == 1
    assert words == pytest.approx(5 / 7)
    assert 0 < pieces < 1


@pytest.mark.parametrize("text", ["x" * 65_536, "語 " * 5_000, "\0", "İ", "é" * 3])
def test_strange_texts_are_texts(text: str) -> None:
    assert len(seen(text, QUESTION)) == COUNT
