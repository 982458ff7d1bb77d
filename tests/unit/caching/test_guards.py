from __future__ import annotations

from collections import Counter

import pytest

from tandem.caching.guards import Refusal, Strictness, read, refusal
from tests.unit.caching.near_pairs import (
    antonyms,
    changed_digits,
    harmful,
    harmless,
    insertions,
    loosely_harmless,
    negations,
    numerals,
    swapped,
    units,
)

BOTH = pytest.mark.parametrize("strictness", list(Strictness))


def why(one: str, other: str, strictness: Strictness = Strictness.USUAL) -> Refusal | None:
    return refusal(read(one), read(other), strictness)


@BOTH
def test_no_made_pair_passes(strictness: Strictness) -> None:
    pairs = harmful()
    assert len(set(pairs)) >= 800
    assert [pair for pair in pairs if why(*pair, strictness) is None] == []
    assert [pair for pair in pairs if why(*pair[::-1], strictness) is None] == [], "in the other direction"


@BOTH
@pytest.mark.parametrize("pair", harmless())
def test_what_says_the_same_passes(pair: tuple[str, str], strictness: Strictness) -> None:
    assert why(*pair, strictness) is None


@pytest.mark.parametrize("pair", loosely_harmless())
def test_a_tense_or_a_plural_passes_unless_strict(pair: tuple[str, str]) -> None:
    assert why(*pair) is None
    assert why(*pair, Strictness.STRICT) is Refusal.WORDS


def test_reasons_are_named() -> None:
    reasons = Counter(why(*pair) for pair in changed_digits_once())
    assert set(reasons) == {Refusal.NUMBER}
    assert Counter(why(*pair) for pair in swapped()).keys() == {Refusal.ORDER}
    assert why("open the box", "open the box never") is Refusal.NEGATION
    assert why("a hot day", "a cold day") is Refusal.ANTONYM
    assert why("is it legal here", "is it really illegal in here now") is Refusal.ANTONYM
    assert why("flights to Boston today", "flights to Denver now today") is Refusal.NAME
    assert why("look at US law", "look at us law") is Refusal.NAME
    assert why("how to spurn an offer", "how to accept an offer") in (Refusal.EXCHANGE, Refusal.ANTONYM)
    assert why("book a table", "book a round table", Strictness.STRICT) is Refusal.WORDS
    assert why("book a table", "book a round table") is None


def changed_digits_once() -> list[tuple[str, str]]:
    import numpy as np

    return changed_digits(np.random.default_rng(1))


def test_there_are_enough_of_each_kind() -> None:
    assert len(changed_digits_once()) >= 100
    assert len(negations()) >= 100
    assert len(antonyms()) >= 150
    assert len(insertions()) >= 60
    assert len(units()) >= 100
    assert len(numerals()) >= 200


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("is it 6' long", 'is it 6" long', Refusal.NUMBER),
        ("is it 6′ long", "is it 6″ long", Refusal.NUMBER),
        ("8' tall and 20\" long", "8\" tall and 20' long", Refusal.ORDER),
        ("we have 5m users", "we have 5 users", Refusal.NUMBER),
        ("floor thirteenth", "the fourteenth floor", Refusal.NUMBER),
        ("he doubts that", "he that", Refusal.NEGATION),
        ("US visa", "us visa", Refusal.NAME),
        ("he was the president", "he is the president", Refusal.WORDS),
        ("not that it is bad", "that it is not bad", Refusal.ORDER),
    ],
)
def test_strict_ones_have_no_gap_there(one: str, other: str, reason: Refusal) -> None:
    assert why(one, other, Strictness.STRICT) is reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ｔｒａｎｓｆｅｒ ５０", "ｔｒａｎｓｆｅｒ ６０"),
        ("an area of 5 m²", "an area of 5 m³"),
        ("add ½ a cup", "add ¼ a cup"),
        ("room ٣", "room ٤"),
        ("it costs 5 $", "it costs 5 €"),
        ("a + b", "a - b"),
        ("x < y", "x > y"),
        ("5 %", "5"),
        ("wake me at 5 am", "wake me at 5"),
        ("wake me at 5 am", "wake me at 5 pm"),
    ],
)
def test_other_digits_and_signs_count(one: str, other: str) -> None:
    assert why(one, other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [("как открыть счёт", "как закрыть свой счёт"), ("如何开户", "如何销户"), ("فتح حساب", "إغلاق حساب بنكي")],
)
def test_what_is_not_english_is_treated_strictly(one: str, other: str) -> None:
    assert why(one, other) is not None


def test_texts_without_words() -> None:
    assert why("", "") is None
    assert why("", "stop") is Refusal.NEGATION
    assert why("", "weather", Strictness.STRICT) is Refusal.WORDS
    assert why("???", "!") is None


def test_words_are_counted() -> None:
    assert why("it is not true", "it is not not true") is not None
    assert why("5 of 5", "5 of 5 5") is not None
    assert why("the card", "the the card") is None
