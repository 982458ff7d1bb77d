"""Answers of Redis come in any pieces; what is none is said to be none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.caching.redis_reply import Answer, GarbledError, RefusedError, Replies

MADE: list[tuple[bytes, Answer]] = [
    (b"+OK\r\n", b"OK"),
    (b":-7\r\n", -7),
    (b"$5\r\na\r\nb\n\r\n", b"a\r\nb\n"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*0\r\n", []),
    (b"*-1\r\n", None),
    (b"*3\r\n$1\r\nx\r\n$-1\r\n*2\r\n:1\r\n*0\r\n", [b"x", None, [1, []]]),
    (b"*2\r\n$1\r\n0\r\n*1\r\n$2\r\nab\r\n", [b"0", [b"ab"]]),
]


@given(st.lists(st.sampled_from(MADE), max_size=6), st.lists(st.integers(1, 40), max_size=30))
def test_answers_come_whole_in_whatever_pieces(sent: list[tuple[bytes, Answer]], cuts: list[int]) -> None:
    data = b"".join(part for part, _ in sent)
    places = [0, *(place for place in np.cumsum(cuts).tolist() if place < len(data)), len(data)]
    replies, got = Replies(), list[Answer]()
    for start, stop in pairwise(places):
        got += replies.feed(data[start:stop])
    assert got == [answer for _, answer in sent]


def test_a_no_is_an_answer() -> None:
    refused, after = Replies().feed(b"-OOM command not allowed\r\n+OK\r\n")
    assert isinstance(refused, RefusedError)
    assert (str(refused), after) == ("OOM command not allowed", b"OK")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"$x\r\n",
        b":1.5\r\n",
        b"$-2\r\n",
        b"$99999999999\r\n",
        b"*99999999999\r\n",
        b"$2\r\nabcd\r\n",
        b"*1\r\n" * 9,
        b"+" + b"x" * 70_000,
        b"%1\r\n",
    ],
)
def test_what_no_redis_says_is_garbled(data: bytes) -> None:
    with pytest.raises(GarbledError):
        Replies().feed(data)
