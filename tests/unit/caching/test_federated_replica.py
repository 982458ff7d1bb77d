"""A copy of what all know: announcements may come twice, late or wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tandem.caching.federated_replica import IndexReplica
from tandem.caching.federated_wire import Addition
from tandem.vectors import INDEXES
from tandem.vectors.base import IndexOptions, Storage
from tandem.vectors.linear import LinearIndex
from tests.federated_board import DIMS, key_of, replica, rows


def additions(n: int) -> list[Addition]:
    return replica().add([key_of(i) for i in range(n)], rows(n), [b"%d" % i for i in range(n)])


def found(copy: IndexReplica, row: int, k: int = 1) -> list[bytes]:
    return [key for key, _ in copy.search(rows(row + 1)[row], k, 0.9)]


def test_what_one_adds_another_finds_at_the_same_cosine() -> None:
    one, other = replica(), replica()
    assert other.fold(one.add([key_of("a")], rows(1), [b"note"]), []) == 0
    assert one.search(rows(1)[0], 1, 0.9) == other.search(rows(1)[0], 1, 0.9)
    assert other.note(key_of("a")) == b"note"
    assert other.search(-rows(1)[0], 1, 0.9) == []


def test_folding_twice_is_folding_once() -> None:
    copy = replica()
    for _ in range(2):
        copy.fold(additions(5), [key_of(2), key_of("never there")])
        copy.fold([], [key_of(2)])
    assert len(copy) == len(copy.index) == 4
    assert found(copy, 1) == [key_of(1)]
    assert key_of(2) not in copy


def test_a_key_that_comes_again_has_its_last_row_and_note() -> None:
    copy = replica()
    copy.add([key_of("a"), key_of("a")], rows(2), [b"old", b"new"])
    assert len(copy) == len(copy.index) == 1
    assert copy.search(rows(2)[1], 1, 0.99) != []
    assert copy.note(key_of("a")) == b"new"
    copy.add([key_of("a")], rows(1))
    assert copy.note(key_of("a")) == b""


@pytest.mark.parametrize(
    ("storage", "signature"),
    [
        ("int8", bytes(DIMS)),
        ("int8", bytes(DIMS - 1)),
        ("float16", np.full(DIMS, np.nan, np.float16).tobytes()),
        ("float16", np.full(DIMS, np.inf, np.float16).tobytes()),
        ("float32", np.full(DIMS, 3e38, np.float32).tobytes()),
        ("float32", np.full(DIMS, 1e-30, np.float32).tobytes()),
    ],
)
def test_a_signature_without_a_direction_is_refused_and_the_rest_is_not(storage: Storage, signature: bytes) -> None:
    index = LinearIndex(IndexOptions(dims=DIMS, storage=storage))
    good = IndexReplica(LinearIndex(index.options), storage, 10).add([key_of("a")], rows(1))
    copy = IndexReplica(index, storage, 10)
    assert copy.fold([Addition(key_of("b"), signature), *good], []) == 1
    assert found(copy, 0, k=2) == [key_of("a")]
    assert copy.fold([Addition(key_of("b"), signature)], []) == 1


def test_the_least_used_go_first() -> None:
    copy = replica(capacity=3)
    copy.fold(additions(3), [])
    copy.used(key_of(0))
    copy.used(key_of("never there"))
    copy.add([key_of("new")], rows(1, seed=1))
    assert [key_of(i) in copy for i in range(3)] == [True, False, True]
    assert len(copy.index) == 3
    assert copy.evicted == 1


def test_contents_are_what_another_can_fold() -> None:
    one, other = replica(), replica()
    one.fold(additions(600), [key_of(7)])
    other.fold(list(one.contents(10_000)), [])
    assert list(other.contents(10_000)) == list(one.contents(10_000))
    assert [addition.key for addition in one.contents(2)] == [key_of(598), key_of(599)]


def test_contents_may_change_while_they_are_read() -> None:
    copy = replica()
    copy.fold(additions(600), [])
    reading = copy.contents(10_000)
    first = next(reading)
    copy.remove([key_of(599)])
    copy.add([key_of("new")], rows(1, seed=1))
    keys = [first.key, *(addition.key for addition in reading)]
    assert keys == [key_of(i) for i in range(599)]


def test_it_says_what_it_holds() -> None:
    copy = replica()
    empty = copy.memory_bytes()
    copy.fold(additions(100), [])
    assert copy.memory_bytes() > empty + 100 * DIMS


def test_an_index_of_somebody_else_is_refused() -> None:
    index = LinearIndex(IndexOptions(dims=DIMS))
    index.add(np.array([3]), rows(1))
    with pytest.raises(ValueError, match="empty index"):
        IndexReplica(index, "int8", 10)


@pytest.mark.parametrize("name", list(INDEXES))
def test_any_index_will_do(name: str) -> None:
    options = IndexOptions(dims=DIMS, linear_up_to=0, cell_rows=50, background=False)
    one, other = (IndexReplica(INDEXES.get(name)(options), "int8", 150) for _ in range(2))
    made = one.add([key_of(i) for i in range(200)], rows(200))
    assert [addition.key for addition in one.contents(10)] == [key_of(i) for i in range(190, 200)]
    assert other.fold(made, [key_of(199)]) == 0
    other.remove([key_of(199)])
    for i in (60, 100, 198):
        assert found(other, i) == found(one, i) == [key_of(i)]
    assert found(other, 199) == []
    assert len(one) == len(one.index) == 150
