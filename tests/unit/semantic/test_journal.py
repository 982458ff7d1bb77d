from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from tandem.errors import ConfigError
from tandem.semantic import Journal, Namespace, SemanticCache, SemanticOptions
from tandem.semantic.records import Labelled
from tandem.semantic.verdicts import Label
from tandem.verification import Promise
from tests.conftest import REPOSITORY
from tests.unit.semantic.worlds import HERE, Calendar, at, cache, full_disk, item

PROMISE = Promise(0.1)


@contextmanager
def opened(
    folder: Path, clock: Calendar | None = None, options: SemanticOptions | None = None
) -> Iterator[tuple[SemanticCache, Journal]]:
    journal = Journal(folder)
    try:
        store = cache(clock, journal, options)
        store.restore(journal.records)
        yield store, journal
    finally:
        journal.close()


def payloads(store: SemanticCache, namespace: Namespace = HERE) -> list[bytes]:
    return [hit.payload for hit in store.lookup(namespace, at(0), -1, k=100).hits]


def test_everything_is_back_after_a_restart(tmp_path: Path) -> None:
    clock = Calendar()
    other = Namespace("tenant", "other", "model")
    with opened(tmp_path, clock) as (store, _):
        ids = [store.store(HERE, item(degrees, b"%d" % degrees)) for degrees in (0, 10, 20)]
        store.store(HERE, item(30, b"30", entry_id="mine"))
        store.store(HERE, item(40, b"40", entry_id="mine"))
        store.store(other, item(0, b"1"))
        store.delete(HERE, [ids[0]])
        clock.advance(5)
    with opened(tmp_path, clock) as (store, _):
        assert payloads(store) == [b"10", b"20", b"40"]
        assert payloads(store, other) == [b"1"]
        hit = store.lookup(HERE, at(10), 0.999).hits[0]
        assert (hit.id, hit.age_s) == (ids[1], 5)
        assert store.store(HERE, item()) not in ids
        store.delete(other)
    with opened(tmp_path, clock) as (store, _):
        assert payloads(store, other) == []
        assert len(payloads(store)) == 4


def test_what_was_learned_is_back_and_what_an_alarm_voided_is_not(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)

    def teach(store: SemanticCache, n: int, right: bool) -> None:
        for _ in range(n):
            found = store.lookup_verified(HERE, at(float(chance.uniform(0, 5))), PROMISE)
            if found.lookup_id is not None:
                store.feedback(HERE, found.lookup_id, right)

    with opened(tmp_path) as (store, _):
        store.store(HERE, item())
        teach(store, 300, right=True)
        threshold = store.lookup_verified(HERE, at(0), PROMISE).threshold
        assert threshold is not None
    with opened(tmp_path) as (store, _):
        assert store.lookup_verified(HERE, at(0), PROMISE).threshold == pytest.approx(threshold, abs=1e-3)
        teach(store, 100, right=False)
        assert store.lookup_verified(HERE, at(0), PROMISE).threshold is None
    with opened(tmp_path) as (store, journal):
        assert store.lookup_verified(HERE, at(0), PROMISE).threshold is None
        journal.compaction(store.serials())()
    with opened(tmp_path) as (store, _):
        assert store.lookup_verified(HERE, at(0), PROMISE).threshold is None


def test_labels_of_another_version_are_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    store = cache(recorder=journal)
    store.store(HERE, item())
    for _ in range(500):
        journal.append(Labelled(HERE, Label(PROMISE, (0.9, 0.81), True, False)), takes_back=False)
    journal.close()
    with opened(tmp_path) as (store, _):
        found = store.lookup_verified(HERE, at(0), PROMISE)
        assert found.threshold is None
        assert found.lookup_id is not None
        assert store.feedback(HERE, found.lookup_id, True)


def test_a_restart_does_not_lengthen_a_life(tmp_path: Path) -> None:
    clock = Calendar()
    with opened(tmp_path, clock) as (store, _):
        store.store(HERE, item(0, b"1", ttl_s=10))
        store.store(HERE, item(5, b"2", ttl_s=100))
        store.store(HERE, item(9, b"3"))
    clock.advance(6)
    with opened(tmp_path, clock) as (store, _):
        assert payloads(store) == [b"1", b"2", b"3"]
        clock.advance(4)
        assert payloads(store) == [b"2", b"3"]
    with opened(tmp_path, clock) as (store, _):
        assert payloads(store) == [b"2", b"3"]


@pytest.mark.parametrize("jump_s", [-1e6, 1e6])
def test_where_the_calendar_jumped_between_only_the_ageless_stay(
    jump_s: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Calendar()
    with opened(tmp_path, clock) as (store, _):
        store.store(HERE, item(0, b"1", ttl_s=10))
        store.store(HERE, item(5, b"2"))
    clock.calendar_s += jump_s
    with opened(tmp_path, clock) as (store, _):
        assert payloads(store) == [b"2"]
    assert ("the calendar went back" in caplog.text) == (jump_s < 0)


@pytest.mark.parametrize("cut", [1, 5, 13, 40, 200])
@pytest.mark.parametrize("zeros", [0, 4096])
def test_a_torn_end_loses_only_what_was_torn(cut: int, zeros: int, tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        for degrees in (0, 10, 20):
            store.store(HERE, item(degrees, b'"%s"' % (b"x" * 200)))
    (path,) = tmp_path.glob("*.records")
    path.write_bytes(path.read_bytes()[:-cut] + bytes(zeros))
    with opened(tmp_path) as (store, _):
        assert len(payloads(store)) == 2
        store.store(HERE, item(30))
    with opened(tmp_path) as (store, _):
        assert len(payloads(store)) == 3


@pytest.mark.parametrize("place", [0, 30, 100, -1])
def test_damage_sets_all_files_aside_with_one_line(
    place: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with opened(tmp_path) as (store, _):
            store.store(HERE, item())
    path = sorted(tmp_path.glob("*.records"))[0]
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    with opened(tmp_path) as (store, journal):
        assert payloads(store) == []
        assert journal.state() == "ok"
        store.store(HERE, item(0, b"7"))
    assert len(caplog.records) == 1
    assert "set aside" in caplog.text
    assert len(list(tmp_path.glob("*.damaged"))) == 2
    with opened(tmp_path) as (store, _):
        assert payloads(store) == [b"7"]


def test_a_compaction_leaves_out_what_is_gone(tmp_path: Path) -> None:
    clock = Calendar()
    with opened(tmp_path, clock) as (store, journal):
        for index in range(50):
            store.store(HERE, item(index, b"%d" % index, entry_id=str(index % 10)))
        before = journal.disk_bytes()
        work = journal.compaction(store.serials())
        # What comes while the copy is made is not lost.
        store.delete(HERE, ["3"])
        store.store(HERE, item(60, b"60"))
        with pytest.raises(RuntimeError, match="under way"):
            journal.compaction(store.serials())
        work()
        assert journal.disk_bytes() < before / 2
        expected = payloads(store)
    with opened(tmp_path, clock) as (store, _):
        assert payloads(store) == expected
        assert len(expected) == 10


def test_a_close_waits_for_the_copy_and_keeps_it(tmp_path: Path) -> None:
    clock = Calendar()
    with opened(tmp_path, clock) as (store, journal):
        for index in range(20):
            store.store(HERE, item(index, b"%d" % index))
        expected = payloads(store)
        copying = Thread(target=journal.compaction(store.serials()))
        closing = Thread(target=journal.close)
        closing.start()
        copying.start()
        closing.join()
        copying.join()
    with opened(tmp_path, clock) as (store, _):
        assert payloads(store) == expected


def test_a_crash_after_the_copy_reads_the_copy_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        gone = store.store(HERE, item(0, b"1"))
    first = min(tmp_path.glob("*.records"))
    old = first.read_bytes()
    with opened(tmp_path) as (store, journal):
        store.delete(HERE, [gone])
        store.store(HERE, item(5, b"2"))
        journal.compaction(store.serials())()
    # As if the process had ended before it removed the older file, and amid the next copy.
    first.write_bytes(old)
    (tmp_path / "00000009.copy").write_bytes(b"half")
    with opened(tmp_path) as (store, _):
        assert payloads(store) == [b"2"]
    assert not first.exists()
    assert not list(tmp_path.glob("*.copy"))


def test_it_wants_a_compaction_after_many_restarts(tmp_path: Path) -> None:
    for _ in range(16):
        with opened(tmp_path) as (store, journal):
            assert not journal.prepare_compaction(store.statistics().bytes)
    with opened(tmp_path) as (store, journal):
        assert journal.prepare_compaction(store.statistics().bytes)
        journal.compaction(store.serials())()
        assert not journal.prepare_compaction(store.statistics().bytes)


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(ConfigError, match="in use by another process"):
        Journal(tmp_path)
    with opened(tmp_path) as (store, _):
        assert payloads(store) == []


def test_a_folder_that_can_not_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can not be kept in"):
        Journal(tmp_path / "file" / "folder")


def test_a_full_disk_costs_persistence_and_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as (store, journal):
        store.store(HERE, item(0, b"0"))
        with full_disk(journal.disk_bytes() + 30):
            for degrees in (10, 20, 30):
                store.store(HERE, item(degrees, b"%d" % degrees))
        assert len(payloads(store)) == 4
        assert journal.state() == "the disk refused 3 writes: File too large"
        store.store(HERE, item(40, b"40"))
    assert len(caplog.records) == 1
    with opened(tmp_path) as (store, _):
        assert payloads(store) == [b"0", b"40"]


def test_what_a_full_disk_can_not_take_back_is_not_kept_at_all(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, journal):
        store.store(HERE, item(0, b"0", entry_id="secret"))
        store.store(HERE, item(10, b"10"))
        with full_disk(journal.disk_bytes() + 5):
            assert store.delete(HERE, ["secret"]) == 1
        assert payloads(store) == [b"10"]
        assert journal.state().startswith("not persistent")
        store.store(HERE, item(20, b"20"))
        journal.sync()
    with opened(tmp_path) as (store, _):
        assert payloads(store) == []


STORES_AND_DIES = """
import os, pathlib, signal, sys
from tandem.semantic import Journal
from tests.conftest import REPOSITORY
from tests.unit.semantic.worlds import HERE, cache, item
store = cache(recorder=Journal(pathlib.Path(sys.argv[1])))
for index in range(50):
    store.store(HERE, item(index, b"%d" % index))
    os.write(1, b".")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", STORES_AND_DIES, tmp_path], cwd=REPOSITORY, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with opened(tmp_path) as (store, _):
        assert len(payloads(store)) == len(killed.stdout) == 50


def test_a_smaller_budget_and_fewer_namespaces_after_a_restart_keep_what_fits(tmp_path: Path) -> None:
    with opened(tmp_path) as (store, _):
        for index in range(40):
            store.store(Namespace("t", f"n{index % 4}"), item(index))
    small = SemanticOptions(budget_bytes=6_000, max_namespaces=2)
    with opened(tmp_path, options=small) as (store, _):
        statistics = store.statistics()
        assert statistics.namespaces == 2
        assert 0 < statistics.bytes <= 6_000
