from __future__ import annotations

from collections.abc import Sequence

import pytest

from tandem.semantic.signals import COUNT, Words, read, signals

QUESTIONS = (
    "how do I open an account",
    "how do I close a card",
    "how do I cook rice",
    "what is the capital of Peru",
)


def words() -> Words:
    found = Words()
    for text in QUESTIONS:
        found.add(read(text))
    return found


def seen(asked: str | None, stored: str | None, cosine: float = 0.9, after: float = 0.8) -> Sequence[float]:
    first, second = (None if text is None else read(text) for text in (asked, stored))
    return signals(words(), first, second, cosine, after)


def test_the_cosine_comes_first_and_there_are_always_as_many() -> None:
    for asked, stored in ((None, None), ("a", None), ("", ""), ("!?", "..."), (QUESTIONS[0], QUESTIONS[1])):
        found = seen(asked, stored)
        assert len(found) == COUNT
        assert found[0] == 0.9


def test_the_same_text_is_as_near_as_can_be() -> None:
    _, _, _, both, shared, pieces, shared_by_rarity, rarest, _ = seen(QUESTIONS[0], QUESTIONS[0].upper() + "?")
    assert (both, shared, pieces, shared_by_rarity, rarest) == (1, 1, 1, 1, 0)


def test_a_rare_word_that_differs_weighs_more_than_a_common_one() -> None:
    rare, common = seen("how do I open it", "how do I close it"), seen("how do I open it", "do I open it")
    assert rare[7] > common[7] > 0
    assert rare[6] < common[6]


def test_a_word_is_as_rare_as_texts_say() -> None:
    found = words()
    how, opened, never = (found.rarity(next(iter(read(word).words))) for word in ("how", "open", "never"))
    assert how < opened < never == pytest.approx(0.9, abs=0.1)
    assert Words().rarity(0) == 0


def test_a_lead_over_nothing_is_bounded() -> None:
    assert seen(None, None, 0.9, -1.0)[2] == 0.5
    assert seen(None, None, 0.9, 0.8)[2] == pytest.approx(0.1)


@pytest.mark.parametrize("text", ["\ud800", "x" * 65_536, "語 " * 5_000, "\0"])
def test_strange_texts_are_texts(text: str) -> None:
    assert len(seen(text, QUESTIONS[0])) == COUNT
