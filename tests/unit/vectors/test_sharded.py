"""Cells that split while they are searched and written to."""

from __future__ import annotations

from threading import Thread

import numpy as np

from tandem.vectors import IndexOptions
from tandem.vectors.sharded import ShardedIndex
from tests.unit.vectors.rows import DIMS, made


def test_cells_split_as_they_fill_and_go_when_they_are_empty() -> None:
    options = IndexOptions(dims=DIMS, linear_up_to=100, cell_rows=150, probes=3, background=False)
    index = ShardedIndex(options)
    rows = made(2000)
    for start in range(0, 2000, 100):
        index.add(np.arange(start, start + 100), rows[start : start + 100])
        index.run_pending()
    assert len(index.cells) >= 7
    assert max(index.cells) <= 300
    assert len(index) == 2000
    ids, _ = index.search(rows, 1)
    assert np.mean(ids[:, 0] == np.arange(2000)) >= 0.995
    index.remove(np.arange(1999))
    assert index.cells == (1,)
    assert index.search(rows[:1], 2)[0].tolist() == [[1999, -1]]


def test_a_cell_of_one_and_the_same_row_stays_whole() -> None:
    options = IndexOptions(dims=DIMS, cell_rows=20, probes=1, background=False)
    index = ShardedIndex(options)
    rows = np.ones((200, DIMS), np.float32)
    index.add(np.arange(100), rows[:100])
    assert index.run_pending() == 1
    index.add(np.arange(100, 140), rows[:40])
    assert index.run_pending() == 0
    index.add(np.arange(140, 200), rows[:60])
    assert index.run_pending() == 1
    assert index.cells == (200,)
    assert (index.search(rows[:1], 200)[1] > 0.9999).all()


def test_what_changes_during_a_split_is_in_the_halves() -> None:
    options = IndexOptions(dims=DIMS, linear_up_to=5000, cell_rows=200, probes=2, background=False)
    index = ShardedIndex(options)
    rows = made(1000)
    index.add(np.arange(600), rows[:600])
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        if len(asked) == 2:
            index.remove(np.arange(0, 600, 2))
            index.add(np.arange(1, 600, 2), rows[600:900])
        return False

    index.worker._jobs.popleft()(stopped)
    assert len(index.cells) == 2
    assert sorted(index.ids().tolist()) == list(range(1, 600, 2))
    assert (index.search(rows[600:900], 1)[0][:, 0] == np.arange(1, 600, 2)).all()


def test_searches_go_on_while_a_thread_splits_cells() -> None:
    index = ShardedIndex(IndexOptions(dims=DIMS, linear_up_to=200, cell_rows=150, probes=99))
    rows = made(2500)
    wrong: list[int] = []

    def searches() -> None:
        for place in range(0, 200, 2):
            ids, _ = index.search(rows[place : place + 1], 1)
            if ids[0, 0] != place:
                wrong.append(place)

    index.add(np.arange(200), rows[:200])
    reader = Thread(target=searches)
    reader.start()
    for start in range(200, 2500, 50):
        index.add(np.arange(start, start + 50), rows[start : start + 50])
    reader.join()
    index.worker.settle()
    assert wrong == []
    assert index.worker.faults == 0
    assert len(index.cells) > 4
    assert np.sort(index.ids()).tolist() == list(range(2500))
    assert (index.search(rows, 1)[0][:, 0] == np.arange(2500)).mean() >= 0.999
    index.close()
