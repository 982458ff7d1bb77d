"""Guards of the near-duplicate tier: texts whose difference could turn the meaning around do not stand for each other.

No cheap key tells "open" from "closed" or 10 from 100: such words stand in the same company, so their vectors are near.
What the key can not see is looked at in the words themselves. A guard that refuses too much costs a forward pass; one
that refuses too little serves a wrong row. In doubt, refuse.

Word lists alone were rejected: no list has all antonyms. Hence the rule on exchanged words, which needs no list: a text
that has one word in the place of another is refused, whatever the two mean. Gaps that are left: an antonym on no list
that comes with other changes; a word more that is on no list, which mostly narrows ("a round table"); tenses.
``Strictness.STRICT`` lets no word differ but articles and courtesies. Neither sees a question mark, or that the first
word is a name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Set
from enum import StrEnum
from functools import lru_cache

import msgspec

from tandem.caching.near_words import (
    CARDINALS,
    CONTRACTIONS,
    FILLERS,
    HARMLESS,
    NEGATORS,
    NUMBER_WORDS,
    OPPOSED_PREFIXES,
    OPPOSED_SUFFIXES,
    OPPOSITES,
    REVERSING_PREFIXES,
    REVERSING_SUFFIXES,
    SHORTENED,
)

# Letters with apostrophes inside; digits with points inside, or a point before; any sign by itself, but for plain
# punctuation. `!x` is a negation, `x!` is not. A quote after a number is feet or inches.
_TOKEN = re.compile(
    r"[^\W\d_]+(?:['’][^\W\d_]+)*|[.,]?\d+(?:[.,:]\d+)*|(?:(?<=\d)|(?<=\d\s))(?:['’′]{1,2}|[\"”″])"
    r"|!(?=[\w(=])|[^\w\s.,;:?!'’‘\"“”„«»()…]|_",
)
_DIGIT = re.compile(r"\d")
_FEW = frozenset({"few", "little"})
_COUNTING = CARDINALS | _FEW
# Shorter stems are found in too many words by chance.
_STEM = 3


class Strictness(StrEnum):
    """USUAL: numbers, negations, antonyms, names, order, and words in the place of others. STRICT: whatever is not
    harmless for sure."""

    USUAL = "usual"
    STRICT = "strict"


class Refusal(StrEnum):
    """Why a candidate must not stand for a text. EXCHANGE: a word in the place of another; WORDS: others than harmless
    ones differ, where the guards are strict."""

    NUMBER = "number"
    NEGATION = "negation"
    ANTONYM = "antonym"
    NAME = "name"
    ORDER = "order"
    EXCHANGE = "exchange"
    WORDS = "words"


class Reading(msgspec.Struct, frozen=True):
    """A text as the guards see it: ``words`` casefolded, contractions expanded, plain punctuation gone, one space
    between two; ``names``: those written with a capital within a sentence, as they are written."""

    words: str
    names: str


def read(text: str) -> Reading:
    """The words of ``text``."""
    if not text.isascii():
        # Full-width digits, superscripts and fractions become what they stand for.
        text = unicodedata.normalize("NFKC", text)
    tokens = _TOKEN.findall(text)
    folded = text.casefold()
    # Most questions are written small and hold nothing to expand.
    words = tokens if folded == text else [token.casefold() for token in tokens]
    names = "" if folded == text else " ".join(_names(tokens))
    if "'" in text or "’" in text or not CONTRACTIONS.keys().isdisjoint(words):
        words = [word for token in words for word in _expand(token.replace("’", "'"))]
    if _DIGIT.search(text) or not _COUNTING.isdisjoint(words):
        words = list(_counted(words))
    return Reading(" ".join(words), names)


class Judge:
    """One text against several others: what is read of it is read once."""

    def __init__(self, reading: Reading, strictness: Strictness) -> None:
        self._reading = reading
        self._strictness = strictness
        self._words = reading.words.split()
        self._set = set(self._words)

    def refusal(self, other: Reading) -> Refusal | None:
        """Why the text and ``other`` must not stand for each other; None when nothing speaks against it. Symmetric.

        The lists are of English. Texts with other letters than ASCII's are always treated strictly.
        """
        one, ours, left = self._reading, self._words, self._set
        if one.words == other.words:
            return None if one.names == other.names else Refusal.NAME
        theirs = other.words.split()
        right = set(theirs)
        differing = left ^ right
        if not differing.isdisjoint(NUMBER_WORDS) or not all(map(str.isalpha, differing)):
            return Refusal.NUMBER
        if not differing.isdisjoint(NEGATORS):
            return Refusal.NEGATION
        gone, come = left - right, right - left
        if any(not OPPOSITES.get(word, _NONE).isdisjoint(come) for word in gone):
            return Refusal.ANTONYM
        if one.names != other.names:
            return Refusal.NAME
        strict = self._strictness is Strictness.STRICT or not (one.words.isascii() and other.words.isascii())
        harmless = FILLERS if strict else HARMLESS
        # Also where a word stands twice in one and once in the other: "not" has to be counted.
        shared = (left & right) - harmless
        if [word for word in ours if word in shared] != [word for word in theirs if word in shared]:
            return Refusal.ORDER
        if differing <= harmless:
            return None
        if strict:
            return Refusal.WORDS
        if _exchanged(ours, theirs):
            return Refusal.EXCHANGE
        # The dearest of the checks comes last.
        if _turned(gone, right) or _turned(come, left) or _opposed(gone, come):
            return Refusal.ANTONYM
        return None


def refusal(one: Reading, other: Reading, strictness: Strictness) -> Refusal | None:
    """As ``Judge``, for two."""
    return Judge(one, strictness).refusal(other)


def _counted(words: list[str]) -> Iterator[str]:
    """``words``, with a point after each that says what a number counts: "5m" and "5k" and "5" are three numbers, "5
    days" and "5 weeks" two. So does "a few", which is more than "few"."""
    before = ""
    for word in words:
        counts = before[:1].isdigit() or before in CARDINALS
        # After a number "am" is a time of day.
        marked = (counts and (word not in HARMLESS or word == "am")) or (before == "a" and word in _FEW)
        yield word + "." if marked and word.isalpha() else word
        before = word


def _expand(word: str) -> Iterable[str]:
    known = CONTRACTIONS.get(word)
    if known is not None:
        return known
    first, *others = word.split("'")
    if not first:
        return (word,)
    if word.endswith("n't"):
        return (word[:-3], "not")
    return (first, *(SHORTENED.get(other, other) for other in others))


def _names(tokens: list[str]) -> list[str]:
    letters = [token for token in tokens if token.isalpha()]
    if all(map(str.istitle, letters)) or all(map(str.isupper, letters)):
        return []  # A heading, or a shout: capitals mean nothing.
    # The first word has a capital in any case; two of them make it a name.
    first = [token for token in tokens[:1] if len(token) > 1 and token.isupper()]
    return first + [token for token in tokens[1:] if token[0].isupper() and token != "I"]


_NONE = frozenset[str]()


def _turned(words: Set[str], others: Set[str]) -> bool:
    """Whether one of ``words`` is one of ``others`` with a prefix or suffix that reverses it, or the reverse."""
    for word in words:
        for stem in _stems(word):
            if any(_alike(stem, other) for other in others if other != word):
                return True
    stems = [(stem, other) for other in others for stem in _stems(other)]
    return any(_alike(stem, word) for stem, other in stems for word in words if other != word)


def _opposed(gone: Set[str], come: Set[str]) -> bool:
    """Whether a word has one of two opposed prefixes or suffixes, and another, in its place or not, the other one."""
    for one in gone:
        sides = _sides(one)
        for other in come if sides else ():
            if any(p == q and a != b and _alike(x, y) for p, a, x in sides for q, b, y in _sides(other)):
                return True
    return False


@lru_cache(maxsize=1 << 14)
def _stems(word: str) -> tuple[str, ...]:
    """What ``word`` would be the reverse of: "helpful" for "unhelpful", "use" for "useless"."""
    before = [word[len(prefix) :] for prefix in REVERSING_PREFIXES if word.startswith(prefix)]
    after = [word[: -len(suffix)] for suffix in REVERSING_SUFFIXES if word.endswith(suffix)]
    return tuple(stem for stem in before + after if len(stem) >= _STEM)


@lru_cache(maxsize=1 << 14)
def _sides(word: str) -> tuple[tuple[int, int, str], ...]:
    """(pair, side, stem) for every opposed prefix or suffix: "bound" on the left side of in- and out-."""
    found = []
    for pair, ends in enumerate(OPPOSED_PREFIXES):
        found += [(pair, side, word[len(end) :]) for side, end in enumerate(ends) if word.startswith(end)]
    for pair, ends in enumerate(OPPOSED_SUFFIXES, len(OPPOSED_PREFIXES)):
        found += [(pair, side, word[: -len(end)]) for side, end in enumerate(ends) if word.endswith(end)]
    return tuple(one for one in found if len(one[2]) >= _STEM)


def _alike(stem: str, other: str) -> bool:
    """The same but for endings of up to three letters."""
    shared = max(_STEM, min(len(stem), len(other)) - 2)
    return abs(len(stem) - len(other)) <= 3 and stem[:shared] == other[:shared]


def _exchanged(ours: list[str], theirs: list[str]) -> bool:
    """Whether words stand in the place of others, all else being the same: "open my account", "close my account"."""
    start, ends = 0, (len(ours), len(theirs))
    shorter = min(ends)
    while start < shorter and ours[start] == theirs[start]:
        start += 1
    back = 0
    while back < shorter - start and ours[-1 - back] == theirs[-1 - back]:
        back += 1
    left, right = ours[start : ends[0] - back], theirs[start : ends[1] - back]
    if len(ours) != len(theirs):
        # One word for two ("top up", "withdraw") is an exchange as well; much for much is another sentence.
        return bool(left and right) and len(left) + len(right) <= 3 and not {*left, *right} <= HARMLESS
    pairs = [(one, other) for one, other in zip(left, right, strict=True) if one != other]
    return any(not {one, other} <= HARMLESS and not _inflected(one, other) for one, other in pairs)


def _inflected(one: str, other: str) -> bool:
    """Singular and plural. Not more: "useful" and "useless", "form" and "from" are near each other too."""
    short, long = sorted((one, other), key=len)
    return long in (short + "s", short + "es") and not short.endswith("s") and len(short) >= _STEM
