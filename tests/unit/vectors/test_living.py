"""An index that changes its kind while it is used."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from tandem.errors import ConfigError
from tandem.vectors import INDEXES, IndexOptions, SnapshotBroken, best_index, load_index, save_index
from tandem.vectors import renewal as renewal_module
from tandem.vectors.hnsw import HnswIndex
from tandem.vectors.living import LivingIndex
from tests.unit.vectors.rows import DIMS, made

OPTIONS = IndexOptions(dims=DIMS, background=False, linear_up_to=100, rebuild_after=0.5)


def kinds(index: LivingIndex, jobs: int) -> tuple[str, str]:
    """What it was before ``jobs`` jobs were done and after them."""
    before = index.kind
    assert index.run_pending() == jobs
    return before, index.kind


def test_it_becomes_a_graph_when_it_has_grown_and_linear_when_it_has_shrunk() -> None:
    index = LivingIndex(OPTIONS)
    rows = made(200)
    index.add(np.arange(100), rows[:100])
    assert index.run_pending() == 0
    index.add(np.arange(100, 200), rows[100:])
    assert kinds(index, 1) == ("linear", "hnsw")
    assert (index.search(rows, 1)[0][:, 0] == np.arange(200)).all()
    index.remove(np.arange(180))
    assert kinds(index, 1) == ("hnsw", "linear")
    assert len(index) == 20
    assert (index.search(rows[180:], 1)[0][:, 0] == np.arange(180, 200)).all()


def test_a_graph_is_built_anew_when_half_of_it_is_graves() -> None:
    index = LivingIndex(OPTIONS)
    rows = made(600)
    index.add(np.arange(400), rows[:400])
    index.run_pending()
    grown = index.memory_bytes()
    index.add(np.arange(200), rows[400:])
    assert index.run_pending() == 0
    index.add(np.array([7]), made(1, seed=9))
    assert index.run_pending() == 1
    assert (index.builds, index.kind, len(index)) == (2, "hnsw", 400)
    assert index.memory_bytes() <= grown


def test_what_changes_during_a_build_is_in_what_was_built() -> None:
    index = LivingIndex(OPTIONS)
    rows = made(1000)
    index.add(np.arange(600), rows[:600])
    asked: list[int] = []

    # A build looks whether to stop between its steps: a good place for others to write.
    def stopped() -> bool:
        asked.append(1)
        if len(asked) == 2:
            index.remove(np.arange(0, 600, 3))
            index.add(np.arange(1, 600, 3), rows[600:800])
            index.add(np.arange(2000, 2200), rows[800:])
        return False

    job = index.worker._jobs.popleft()
    job(stopped)
    assert (index.kind, index.builds) == ("hnsw", 1)
    expected = {one for one in range(600) if one % 3} | set(range(2000, 2200))
    assert set(index.ids().tolist()) == expected
    assert (index.search(rows[600:800], 1)[0][:, 0] == np.arange(1, 600, 3)).all()
    assert (index.search(rows[800:], 1)[0][:, 0] == np.arange(2000, 2200)).all()
    assert (index.search(rows[2:600:3], 1)[0][:, 0] == np.arange(2, 600, 3)).all()


def test_a_build_that_is_stopped_changes_nothing() -> None:
    index = LivingIndex(OPTIONS)
    index.add(np.arange(600), made(600))
    job = index.worker._jobs.popleft()
    job(lambda: True)
    assert (index.kind, index.builds, len(index)) == ("linear", 0, 600)


def test_a_build_that_fails_is_tried_again_after_some_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(kind: str, options: IndexOptions) -> HnswIndex:
        raise MemoryError("no room for a graph")

    index = LivingIndex(OPTIONS)
    rows = made(800)
    with monkeypatch.context() as patch:
        patch.setattr(renewal_module, "make", refuses)
        index.add(np.arange(600), rows[:600])
        assert index.run_pending() == 1
        assert index.worker.fault == "MemoryError: no room for a graph"
        index.add(np.arange(600, 620), rows[600:620])
        assert index.run_pending() == 0
    index.add(np.arange(620, 700), rows[620:700])
    assert index.run_pending() == 1
    assert index.kind == "hnsw"
    assert (index.search(rows[:700], 1)[0][:, 0] == np.arange(700)).all()


def test_without_usearch_it_stays_linear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = HnswIndex(OPTIONS)
    graph.add(np.arange(9), made(9))
    save_index(graph, tmp_path / "graph")
    monkeypatch.setattr(renewal_module, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "usearch.compiled", None)
    index = best_index(OPTIONS)
    index.add(np.arange(500), made(500))
    assert isinstance(index, LivingIndex)
    assert index.run_pending() == 0
    assert index.kind == "linear"
    assert index.search(made(500), 1)[0][7, 0] == 7
    with pytest.raises(ConfigError, match="pip install usearch"):
        INDEXES.get("hnsw")(OPTIONS)
    with pytest.raises(SnapshotBroken, match="usearch is not installed"):
        load_index(tmp_path / "graph", OPTIONS)


def test_searches_and_writes_go_on_while_a_thread_builds() -> None:
    options = IndexOptions(dims=DIMS, linear_up_to=100, rebuild_after=0.3)
    index = LivingIndex(options)
    rows = made(3000)
    wrong: list[int] = []

    def searches() -> None:
        for place in range(0, 500, 5):
            ids, _ = index.search(rows[place : place + 1], 1)
            if ids[0, 0] != place:
                wrong.append(place)

    index.add(np.arange(500), rows[:500])
    reader = Thread(target=searches)
    reader.start()
    for start in range(500, 3000, 50):
        index.add(np.arange(start, start + 50), rows[start : start + 50])
        if start >= 1000:
            index.remove(np.arange(start - 500, start - 450))
    reader.join()
    index.worker.settle()
    assert wrong == []
    assert index.worker.faults == 0
    assert index.kind == "hnsw"
    assert index.builds >= 1
    live = np.sort(index.ids())
    assert live.tolist() == [*range(500), *range(2500, 3000)]
    assert (index.search(rows[live], 1)[0][:, 0] == live).mean() >= 0.999
    index.close()


def test_closing_ends_a_build_under_way() -> None:
    index = LivingIndex(IndexOptions(dims=DIMS, linear_up_to=10))
    index.add(np.arange(2000), made(2000))
    index.close()
    assert len(index) == 2000
    index.add(np.array([5000]), made(1, seed=4))
    assert index.search(made(1, seed=4), 1)[0].tolist() == [[5000]]
