"""What is known of a hit before it is served: how near it lies, and how the two texts differ.

Cosine alone can not tell "how do I open an account" from "how do I close an account". Which differences matter depends
on the questions that are asked, so nothing is decided here: these are signals, and a verified mode learns from feedback
what they are worth (``verification/features.py``).

Two signals were tried and left out: how far the next entry lies, and how rare the words are that differ. They told the
most, and then broke the promise: both change as a cache fills, so what was learned of them no longer held. Of a pair of
texts and their cosine, nothing changes.
"""

from __future__ import annotations

import math
import re

import msgspec

from tandem.verification import Features

COUNT = 6
# So many of them are zero where a text is missing.
_OF_TEXTS = 4

_WORD = re.compile(r"\w+")
# What is compared of a text: a prompt of 64 KB would take milliseconds.
_MAX_CHARS = 2000


class Reading(msgspec.Struct, frozen=True):
    """A text as it is compared: its words, and the sequences of three characters in them."""

    words: frozenset[str]
    trigrams: frozenset[str]


def read(text: str) -> Reading:
    words = _WORD.findall(text[:_MAX_CHARS].lower())
    plain = " ".join(words)
    return Reading(frozenset(words), frozenset(plain[place : place + 3] for place in range(max(len(plain) - 2, 1))))


def signals(asked: Reading | None, stored: Reading | None, cosine: float) -> Features:
    """``COUNT`` signals of a question and an entry near it; those of the texts are 0 where either is missing."""
    if asked is None or stored is None:
        return (cosine, cosine * cosine, *[0.0] * _OF_TEXTS)
    return (
        cosine,
        cosine * cosine,
        1.0,
        _jaccard(asked.words, stored.words),
        _jaccard(asked.trigrams, stored.trigrams),
        math.log1p(min(len(asked.words), len(stored.words))),
    )


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Shared of all, from 0 to 1; 1 where there is nothing."""
    either = len(first | second)
    return len(first & second) / either if either else 1.0
