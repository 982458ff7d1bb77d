"""What is known of a hit before it is served: how near it lies, and how the two texts differ.

Cosine alone can not tell "how do I open an account" from "how do I close an account". Which differences matter depends
on the questions that are asked, so nothing is decided here: these are signals, and a verified mode learns from feedback
what they are worth (``verification/features.py``).
"""

from __future__ import annotations

import math
import re
import zlib
from array import array

import msgspec

from tandem.verification import Features

COUNT = 9
# So many of them are zero where a text is missing.
_OF_TEXTS = 6
_WORD = re.compile(r"\w+")
# What is compared of a text: a prompt of 64 KB would take milliseconds.
_MAX_CHARS = 2000
_BUCKETS = 1 << 14
# A lead over the next entry beyond this is as good as none being there.
_FAR = 0.5


class Reading(msgspec.Struct, frozen=True):
    """A text as it is compared: its words, by hash, and the sequences of three characters in them."""

    words: frozenset[int]
    trigrams: frozenset[str]


def read(text: str) -> Reading:
    words = _WORD.findall(text[:_MAX_CHARS].lower())
    plain = " ".join(words)
    trigrams = frozenset(plain[place : place + 3] for place in range(max(len(plain) - 2, 1)))
    return Reading(frozenset(zlib.crc32(word.encode("utf-8", "surrogatepass")) % _BUCKETS for word in words), trigrams)


class Words:
    """In how many texts of a namespace a word occurs, by hash: 64 KB however many words there are, none before the
    first text. Where two words meet in a bucket, both look more common than they are."""

    def __init__(self) -> None:
        self._texts = 0
        self._counts: array[int] | None = None

    def add(self, text: Reading) -> None:
        """Texts that go later stay counted: what is rare changes slowly."""
        if self._counts is None:
            self._counts = array("I", bytes(4 * _BUCKETS))
        self._texts += 1
        for word in text.words:
            self._counts[word] += 1

    def rarity(self, word: int) -> float:
        """Inverse document frequency, from 0 for a word of every text to 1 for one of none."""
        count = 0 if self._counts is None else self._counts[word]
        return math.log((self._texts + 1) / (count + 1)) / math.log(self._texts + 2)


def signals(words: Words, asked: Reading | None, stored: Reading | None, cosine: float, next_cosine: float) -> Features:
    """``COUNT`` signals of a question and an entry near it; ``next_cosine`` is that of the entry next in distance, -1
    for none. Those of the texts are 0 where either is missing."""
    lead = min(cosine - next_cosine, _FAR)
    if asked is None or stored is None:
        return (cosine, cosine * cosine, lead, *[0.0] * _OF_TEXTS)
    shared, differing = asked.words & stored.words, asked.words ^ stored.words
    of_shared, of_differing = (list(map(words.rarity, some)) for some in (shared, differing))
    pieces = len(asked.trigrams & stored.trigrams)
    return (
        cosine,
        cosine * cosine,
        lead,
        1.0,
        _share(len(shared), len(shared) + len(differing)),
        _share(pieces, len(asked.trigrams) + len(stored.trigrams) - pieces),
        _share(sum(of_shared), sum(of_shared) + sum(of_differing)),
        max(of_differing, default=0.0),
        math.log1p(min(len(asked.words), len(stored.words))),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
