"""Compactions that fail, and those during which the journal is given up."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from tandem.semantic import Journal, SemanticCache
from tests.unit.semantic.worlds import HERE, at, cache, full_disk, item


class Hook:
    """A disk that does something before it flushes a file whose name ends so."""

    def __init__(self, ending: str) -> None:
        self._ending = ending
        self.act: Callable[[], None] = lambda: None

    def flush(self, descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(self._ending):
            self.act()
        os.fsync(descriptor)


def opened(folder: Path, hook: Hook) -> tuple[SemanticCache, Journal]:
    journal = Journal(folder, flush=hook.flush)
    store = cache(recorder=journal)
    store.store(HERE, item(0, b'"secret"', entry_id="x"))
    store.store(HERE, item(10, b"10"))
    return store, journal


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuse() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def give_up(store: SemanticCache, journal: Journal) -> None:
    """Delete an entry while the disk has no room for that, and wait until it is settled."""
    with full_disk(10):
        assert store.delete(HERE, ["x"]) == 1
    journal.settle()


def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    hook = Hook(".copy")
    store, journal = opened(tmp_path, hook)
    hook.act = refuse
    for _ in range(3):
        journal.compaction(store.serials())()
    assert not list(tmp_path.glob("*.copy"))
    assert journal.state() == "the disk refused 3 writes: No space left on device"
    hook.act = lambda: None
    journal.compaction(store.serials())()
    assert [hit.payload for hit in store.lookup(HERE, at(0), -1, k=9).hits] == [b'"secret"', b"10"]
    journal.close()
    again = Journal(tmp_path)
    assert len(list(again.records())) == 2
    again.close()


def test_a_deletion_that_is_settled_during_a_copy_is_in_no_file(tmp_path: Path) -> None:
    hook = Hook(".copy")
    store, journal = opened(tmp_path, hook)
    left: list[list[str]] = []

    def act() -> None:
        assert b"secret" in (tmp_path / "00000001.copy").read_bytes()
        give_up(store, journal)
        left.append(names(tmp_path))

    hook.act = act
    journal.compaction(store.serials())()
    assert left == [["lock"]], "when it was acknowledged"
    assert names(tmp_path) == ["lock"], "when the copy was made"
    assert journal.state() == "not persistent: the disk refused the journal: File too large"
    journal.close()


def test_a_deletion_that_is_settled_after_the_copy_took_its_place_is_in_no_file(tmp_path: Path) -> None:
    hook = Hook(tmp_path.name)
    store, journal = opened(tmp_path, hook)
    work = journal.compaction(store.serials())
    calls: list[None] = []

    def act() -> None:
        if not calls:
            calls.append(None)
            give_up(store, journal)

    hook.act = act
    work()
    assert calls
    assert names(tmp_path) == ["lock"]
    assert journal.state() == "not persistent: the disk refused the journal: File too large"
    journal.close()


def test_a_copy_of_a_journal_that_is_gone_by_then_does_nothing(tmp_path: Path) -> None:
    store, journal = opened(tmp_path, Hook(".copy"))
    work = journal.compaction(store.serials())
    give_up(store, journal)
    work()
    assert names(tmp_path) == ["lock"]
    journal.close()
